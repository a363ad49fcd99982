//! libvirt's own cases (`tests/cputest.c`): what its functions answer, and what ours answer to the same files.
//!
//! The files are libvirt's and are not kept here. They are looked for in a source tree of libvirt that CPUSIEVE_LIBVIRT
//! names, else beside the case file. Without them a case is judged by what other cases show of its inputs, and those of
//! which nothing is shown are counted.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

mod files;

use std::collections::{BTreeMap, BTreeSet};

use cpusieve_fleet::libvirt::{
    Cpu, Data, Match, Mode, Policy, baseline, decode, expand_features, migratable, translate, update, update_live,
};
use cpusieve_fleet::{Answer, answer, apart};
use cpusieve_knowledge::libvirt::{FEATURES, Model, RELEASES, Set, at, feature, model, models};
use serde_json::Value;

use files::{Files, Reply, cases, text};

/// The release whose cases they are.
fn release() -> usize {
    RELEASES.iter().position(|known| known.label == "11.3").unwrap()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|list| list.iter().filter_map(Value::as_str).collect()).unwrap_or_default()
}

fn set(names: &Value) -> Set {
    strings(names).into_iter().map(|name| feature(release(), name).unwrap_or_else(|| panic!("{name}"))).collect()
}

/// A `<cpu>` as the case file tells it of a result; `None` if there is none.
fn told(told: &Value) -> Option<Cpu> {
    told["file"].as_str()?;
    let name = |field: &str| told[field].as_str().map(str::to_owned);
    let of = |policy: Policy| strings(&told[policy.name()]).into_iter().map(move |name| (name.to_owned(), policy));
    Some(Cpu {
        guest: !told["mode"].is_null(),
        mode: match told["mode"].as_str() {
            Some("host-passthrough") => Mode::HostPassthrough,
            _ => Mode::Custom,
        },
        no_fallback: told["fallback"] == "forbid",
        vendor: name("vendor"),
        model: name("model"),
        features: Policy::ALL.into_iter().flat_map(of).collect(),
        ..Cpu::default()
    })
}

/// What came of a case.
enum Verdict {
    Agrees,
    /// Something differs, and what.
    Differs(String),
    /// Not judged, for this file is not at hand.
    Open(String),
}

use Verdict::{Agrees, Differs, Open};

/// What stops a judgement.
enum Stop {
    Missing(String),
    Wrong(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Self {
        Self::Wrong(what)
    }
}

type Judged = Result<(), Stop>;

/// A result of libvirt's.
struct Theirs {
    cpu: Cpu,
    /// Whether it is all of it: the case file tells what is required and disabled, and nothing else.
    whole: bool,
}

/// What differs between two definitions, beside the order of features.
fn same(ours: &Cpu, Theirs { cpu: theirs, whole }: &Theirs) -> Judged {
    let plain = |cpu: &Cpu| (cpu.model.clone(), cpu.vendor.clone(), cpu.no_fallback);
    if plain(ours) != plain(theirs) {
        return Err(format!("{:?} here, {:?} there", plain(ours), plain(theirs)).into());
    }
    let told = |policy: &Policy| *whole || matches!(policy, Policy::Require | Policy::Disable);
    let features =
        |cpu: &Cpu| cpu.features.clone().into_iter().filter(|(_, policy)| told(policy)).collect::<BTreeSet<_>>();
    let (ours, theirs) = (features(ours), features(theirs));
    let only = |one: &BTreeSet<(String, Policy)>, other| one.difference(other).cloned().collect::<Vec<_>>();
    if ours == theirs {
        return Ok(());
    }
    Err(format!("here {:?}, there {:?}", only(&ours, &theirs), only(&theirs, &ours)).into())
}

/// Everything that cases are judged by.
struct Court {
    files: Files,
    /// Definitions that some case shows as its result, by file.
    shown: BTreeMap<String, Cpu>,
}

impl Court {
    fn judge(&self, case: &Value) -> Verdict {
        let judged = match text(case, "kind") {
            "baseline" => self.baseline(case),
            "cpuid-baseline" => self.cpuid_baseline(case),
            "cpuid" => self.cpuid(case),
            "compare" => self.compare(case),
            "has-feature" => self.has_feature(case),
            "update" => self.update(case),
            "guest-cpu" => self.guest_cpu(case),
            kind => Err(format!("a kind of case that is not known: {kind}").into()),
        };
        match judged {
            Ok(()) => Agrees,
            Err(Stop::Wrong(what)) => Differs(what),
            Err(Stop::Missing(file)) => Open(format!("{file} is not at hand")),
        }
    }

    fn cpu(&self, file: &str) -> Result<Cpu, Stop> {
        let found = self.files.cpus(file).and_then(|cpus| cpus.into_iter().next());
        found.or_else(|| self.shown.get(file).cloned()).ok_or_else(|| Stop::Missing(file.to_owned()))
    }

    /// The result of a case, from its file if that is at hand; `None` for an error.
    fn result(&self, case: &Value, field: &str) -> Option<Theirs> {
        let shown = told(&case[field])?;
        let read = self.files.cpus(text(&case[field], "file")).and_then(|cpus| cpus.into_iter().next());
        Some(Theirs { whole: read.is_some(), cpu: read.unwrap_or(shown) })
    }

    fn compare(&self, case: &Value) -> Judged {
        let (host, cpu) = (self.cpu(text(case, "host"))?, self.cpu(text(case, "cpu"))?);
        let ours = compare(&host, &cpu);
        if case["expected"] == ours { Ok(()) } else { Err(format!("{ours} here").into()) }
    }

    fn has_feature(&self, case: &Value) -> Judged {
        let ours = self.cpu(text(case, "host"))?.has(text(case, "feature"), release()).ok();
        if ours == case["expected"].as_bool() { Ok(()) } else { Err(format!("{ours:?} here").into()) }
    }

    fn update(&self, case: &Value) -> Judged {
        let (host, cpu) = (self.cpu(text(case, "host"))?, self.cpu(text(case, "cpu"))?);
        let ours = update(&cpu, &migratable(&host), release()).map_err(|error| error.to_string())?;
        let theirs = self.result(case, "expected").ok_or_else(|| "no result is told".to_owned())?;
        if ours.mode != theirs.cpu.mode {
            return Err(format!("{:?} here", ours.mode).into());
        }
        same(&ours, &theirs)
    }

    /// A definition as a guest is started with it, or an error.
    fn guest_cpu(&self, case: &Value) -> Judged {
        let (host, cpu) = (self.cpu(text(case, "host"))?, self.cpu(text(case, "cpu"))?);
        let started = || -> Result<Cpu, String> {
            if matches!(compare(&host, &cpu), "ERROR" | "INCOMPATIBLE") {
                return Err("the host cannot run it".to_owned());
            }
            let allowed = case["allowed_models"].is_array().then(|| files::allowed(strings(&case["allowed_models"])));
            let updated = update(&cpu, &host, release()).map_err(|error| error.to_string())?;
            translate(&updated, allowed.as_deref(), release()).map_err(|error| error.to_string())
        };
        match (started(), self.result(case, "expected")) {
            (Ok(ours), Some(theirs)) => same(&ours, &theirs),
            (Err(_), None) => Ok(()),
            (ours, _) => Err(format!("{ours:?} here").into()),
        }
    }

    fn baseline(&self, case: &Value) -> Judged {
        let file = text(case, "input");
        // Without the file, features beside the model are only counted.
        let counted = |cpu: &Value| {
            let name = |field: &str| cpu[field].as_str().map(str::to_owned);
            let cpu_of = |()| Cpu { model: name("model"), vendor: name("vendor"), ..Cpu::default() };
            (cpu["features"] == 0).then_some(()).map(cpu_of)
        };
        let inputs = self.files.cpus(file).or_else(|| case["cpus"].as_array()?.iter().map(counted).collect());
        baselines(case, &inputs.ok_or_else(|| Stop::Missing(file.to_owned()))?, self.result(case, "expected"))
    }

    fn cpuid_baseline(&self, case: &Value) -> Judged {
        let inputs: Result<Vec<Cpu>, Stop> = strings(&case["inputs"]).into_iter().map(|file| self.cpu(file)).collect();
        baselines(case, &inputs?, self.result(case, "expected"))
    }

    /// A CPU's definition as a host and as a guest, of its CPUID; what QEMU provides of it; and the guest's definition
    /// with what QEMU turned on and off.
    fn cpuid(&self, case: &Value) -> Judged {
        let release = release();
        let raw = match self.files.raw(text(case, "raw")) {
            Err(Stop::Missing(_)) => return self.told_twice(case),
            raw => raw?,
        };
        let data = Data::of_cpu(&raw, release);
        let reply = case["qemu_json"].as_str().map(|file| self.files.reply(file)).transpose()?;
        // Whether libvirt looks at QEMU's models.
        let asks = text(case, "json_kind").starts_with("JSON_MODELS");
        let models = reply.as_ref().filter(|_| asks).map(|reply| reply.models.as_slice());
        let is = |what: &str, ours: Option<Cpu>, fallback: bool, field: &str| {
            let ours = ours.ok_or_else(|| format!("{what}: no name here"))?;
            let theirs = self.result(case, field).ok_or_else(|| format!("{field} is not told"))?;
            same(&Cpu { no_fallback: fallback, ..ours }, &theirs).map_err(|stop| match stop {
                Stop::Wrong(what_differs) => Stop::Wrong(format!("{what}: {what_differs}")),
                other => other,
            })
        };
        is("host", decode(&data, false, None, release), false, "expected_host")?;
        let guest = decode(&data, true, models, release);
        is("guest", guest.clone(), true, "expected_guest")?;
        if let Some(sig) = self.files.text(text(case, "signature")) {
            let (family, model, stepping) = data.family_model_stepping();
            let ours = Data::signature_of(family.into(), model.into(), stepping.into());
            if !sig.starts_with(&format!("{ours:06x}\n")) {
                return Err(format!("signature {ours:06x} here").into());
            }
        }
        let Some(Reply { data, .. }) = &reply else { return Ok(()) };
        is("json", decode(data, true, models, release), true, "expected_json")?;
        self.live(case, guest, models)
    }

    /// Without the CPUID: the host's and the guest's definition have one set, but for what QEMU's models cannot have, which
    /// is disabled by name.
    fn told_twice(&self, case: &Value) -> Judged {
        let missing = || Stop::Missing(text(case, "raw").to_owned());
        let host = told(&case["expected_host"]).ok_or_else(missing)?;
        let guest = told(&case["expected_guest"]).ok_or_else(missing)?;
        let expanded = |cpu: &Cpu| cpu.expanded(release()).map_err(|error| error.to_string());
        let (has, may) = (expanded(&host)?, expanded(&guest)?);
        let disabled = guest.with_policy(Policy::Disable, release()).map_err(|error| error.to_string())?;
        if may.minus(&has).is_empty() && has.minus(&may).minus(&disabled).is_empty() {
            return Ok(());
        }
        Err("the host's and the guest's definition are two sets".to_owned().into())
    }

    /// The guest's definition with what QEMU turned on and off has what QEMU provides.
    fn live(&self, case: &Value, guest: Option<Cpu>, models: Option<&[cpusieve_fleet::libvirt::Allowed]>) -> Judged {
        let release = release();
        let (Some(mut guest), Some(theirs)) = (guest, told(&case["expected_json"])) else { return Ok(()) };
        if !self.files.are_there() {
            return Ok(());
        }
        let enabled = self.files.mask(text(case, "enabled"), release)?;
        let disabled = self.files.mask(text(case, "disabled"), release)?;
        if guest.model != theirs.model {
            let name = theirs.model.clone().unwrap_or_default();
            let known = models.into_iter().flatten().find(|model| model.name == name);
            let only = known.cloned().unwrap_or_else(|| files::allowed(vec![&name]).remove(0));
            guest = translate(&guest, Some(&[only]), release).unwrap_or(guest);
        }
        let live = update_live(&guest, &enabled, &disabled, release).map_err(|error| error.to_string())?;
        let expanded = |cpu: &Cpu| expand_features(cpu, release).map_err(|error| error.to_string());
        let (ours, theirs) = (expanded(&live)?, expanded(&theirs)?);
        let has = |cpu: &Cpu| cpu.with_policy(Policy::Require, release).unwrap();
        let (more, less) = (has(&ours).minus(&has(&theirs)), has(&theirs).minus(&has(&ours)));
        if ours.model == theirs.model && more.is_empty() && less.is_empty() {
            return Ok(());
        }
        let names = |set: &Set| set.names().collect::<Vec<_>>().join(" ");
        Err(format!("live: +{} -{}", names(&more), names(&less)).into())
    }
}

/// `virCPUCompare`, in its words.
fn compare(host: &Cpu, cpu: &Cpu) -> &'static str {
    if apart(&host.head(), &cpu.head()).is_some() {
        return "INCOMPATIBLE";
    }
    let (Ok(host), Ok(cpu)) = (host.definition(release()), cpu.definition(release())) else { return "ERROR" };
    match answer(&host, &cpu) {
        Answer::Identical => "IDENTICAL",
        Answer::Superset => "SUPERSET",
        Answer::Incompatible => "INCOMPATIBLE",
    }
}

/// The name, the set, and that the result runs on every input.
fn baselines(case: &Value, inputs: &[Cpu], theirs: Option<Theirs>) -> Judged {
    let release = release();
    let found = baseline(inputs, release, case["migratable"] == true);
    let (ours, theirs) = match (found, theirs) {
        (Ok(ours), Some(theirs)) => (ours, theirs),
        (Err(_), None) => return Ok(()),
        (ours, _) => return Err(format!("{ours:?} here").into()),
    };
    let mut libvirts = set(&case["sets"]["intersection"]);
    if case["migratable"] == true {
        libvirts.remove(feature(release, "invtsc").unwrap());
    }
    if ours.expanded(release).ok() != Some(libvirts) {
        return Err("another set than the intersection".to_owned().into());
    }
    if let Some(wrong) = inputs.iter().find(|input| !["IDENTICAL", "SUPERSET"].contains(&compare(input, &ours))) {
        return Err(format!("it does not run on {:?}", wrong.model).into());
    }
    let ours = if case["expand_features"] == true { expand_features(&ours, release).unwrap() } else { ours };
    same(&ours, &theirs)
}

#[test]
fn every_case_is_judged_or_said_why_not() {
    let Some(cases) = cases() else { return };
    let fields = ["expected", "expected_host", "expected_guest", "expected_json"];
    let results = cases.iter().flat_map(|case| fields.iter().map(|field| &case[*field]));
    let mut shown: BTreeMap<String, Cpu> =
        results.filter_map(|result| Some((result["file"].as_str()?.to_owned(), told(result)?))).collect();
    // libvirt's test host is what host-model becomes on it.
    if let Some(host) = shown.get("x86_64-host+host-model.xml").cloned() {
        shown.insert("x86_64-host.xml".to_owned(), Cpu { guest: false, ..host });
    }
    // What is whole by its name.
    let guest = Cpu { guest: true, ..Cpu::default() };
    for (file, cpu) in [
        ("min", Cpu { matching: Match::Minimum, ..guest.clone() }),
        ("pentium3", Cpu { matching: Match::Minimum, ..guest.clone() }),
        ("host-model", Cpu { mode: Mode::HostModel, ..guest.clone() }),
        ("host-model-nofallback", Cpu { mode: Mode::HostModel, no_fallback: true, ..guest.clone() }),
    ] {
        shown.insert(format!("x86_64-{file}.xml"), cpu);
    }
    let court = Court { files: Files::find(), shown };
    let (mut tally, mut wrong) = (BTreeMap::<&str, [usize; 2]>::new(), Vec::new());
    for case in &cases {
        let counts = tally.entry(text(case, "kind")).or_default();
        match court.judge(case) {
            Agrees => counts[0] += 1,
            Open(why) => {
                counts[1] += 1;
                eprintln!("{}: not judged: {why}", text(case, "id"));
            }
            Differs(what) => wrong.push(format!("{}: {what}", text(case, "id"))),
        }
    }
    eprintln!("{:<16} {:>6} {:>10}", "kind", "agree", "not judged");
    for (kind, counts) in &tally {
        eprintln!("{kind:<16} {:>6} {:>10}", counts[0], counts[1]);
    }
    let sum = |at: usize| tally.values().map(|counts| counts[at]).sum::<usize>();
    eprintln!("{:<16} {:>6} {:>10}", "all", sum(0), sum(1));
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), cases.len());
    assert!(!court.files.are_there() || sum(1) == 0, "with the files at hand, every case is judged");
}

#[test]
fn a_baseline_of_two_models_runs_on_both() {
    let release = release();
    let host = |model: &str| Cpu { arch: Some("x86_64".into()), model: Some(model.into()), ..Cpu::default() };
    let names: Vec<&str> = models(release).iter().filter(|model| model.guest).map(Model::name).collect();
    let vendor = |name: &str| model(release, name).unwrap().vendor();
    let mut found = 0;
    for (at, one) in names.iter().enumerate() {
        for other in names.iter().skip(at) {
            let inputs = [host(one), host(other)];
            let Ok(cpu) = baseline(&inputs, release, false) else { continue };
            let both = inputs[0].expanded(release).unwrap().intersection(&inputs[1].expanded(release).unwrap());
            assert_eq!(cpu.expanded(release), Ok(both), "{one} and {other}");
            assert!(inputs.iter().all(|input| compare(input, &cpu) != "INCOMPATIBLE"), "{one} and {other}");
            // Of the first CPU libvirt does not look at the model's vendor, so the order may matter.
            if vendor(one) == vendor(other) {
                assert_eq!(baseline(&[host(other), host(one)], release, false).ok(), Some(cpu), "{one} and {other}");
            }
            found += 1;
        }
    }
    assert!(found > names.len(), "{found}");
}

#[test]
fn what_is_printed_for_libvirt_are_its_names() {
    let catalogue = cpusieve_fleet::newest();
    for property in catalogue.properties() {
        let known: Vec<&str> =
            property.places.iter().filter_map(|&place| at(release(), place)).map(|at| FEATURES[at].name()).collect();
        let ours = cpusieve_answers::rehearse::domain::in_libvirt(property.name);
        assert!(known.is_empty() || known.contains(&&*ours), "{} is {known:?}, not {ours}", property.name);
    }
}

#[test]
fn each_feature_of_the_map_has_an_id_of_its_own() {
    let mut ids = BTreeMap::new();
    for (at, feature) in FEATURES.iter().enumerate() {
        let other = ids.insert(cpusieve_fleet::libvirt::id(at), feature.name());
        assert_eq!(other, None, "{}", feature.name());
    }
}
