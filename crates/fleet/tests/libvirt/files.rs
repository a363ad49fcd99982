//! libvirt's files, wherever they are.

use std::path::{Path, PathBuf};

use cpusieve_fleet::libvirt::{Allowed, Cpu, Data};
use cpusieve_knowledge::libvirt::{self, Set, VENDORS};
use cpusieve_knowledge::qemu;
use cpusieve_model::Register;
use serde_json::Value;

use super::Stop;

fn shared() -> PathBuf {
    let folder = std::env::var_os("CPUSIEVE_SHARED").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"))
}

/// A text of a case; empty if it has none.
pub(super) fn text<'v>(case: &'v Value, field: &str) -> &'v str {
    case[field].as_str().unwrap_or("")
}

/// The cases; `None` where they are not at hand.
pub(super) fn cases() -> Option<Vec<Value>> {
    let file = shared().join("facts/libvirt-baseline-cases.json");
    let Ok(text) = std::fs::read_to_string(&file) else {
        eprintln!("skipped: {} is not there", file.display());
        return None;
    };
    Some(serde_json::from_str::<Value>(&text).unwrap()["cases"].as_array().unwrap().clone())
}

/// Models without anything that blocks them.
pub(super) fn allowed(names: Vec<&str>) -> Vec<Allowed> {
    names.into_iter().map(|name| Allowed { name: name.to_owned(), blockers: Vec::new() }).collect()
}

/// What QEMU answered.
pub(super) struct Reply {
    /// What it provides.
    pub(super) data: Data,
    /// Its models.
    pub(super) models: Vec<Allowed>,
}

/// Where libvirt's files are.
pub(super) struct Files {
    folders: Vec<PathBuf>,
    whole: bool,
}

impl Files {
    pub(super) fn find() -> Self {
        let tree = std::env::var_os("CPUSIEVE_LIBVIRT").map(|tree| Path::new(&tree).join("tests/cputestdata"));
        let folder = tree.unwrap_or_else(|| shared().join("facts/libvirt-cputestdata"));
        let whole = folder.is_dir();
        if !whole {
            eprintln!("{} is not there: judged by what the cases tell of their inputs", folder.display());
        }
        Self { folders: vec![folder, shared().join("corpus/libvirt")], whole }
    }

    /// Whether all of them are at hand.
    pub(super) fn are_there(&self) -> bool {
        self.whole
    }

    pub(super) fn text(&self, file: &str) -> Option<String> {
        let mut paths = self.folders.iter().map(|folder| folder.join(file)).filter(|path| path.is_file());
        paths.find_map(|path| std::fs::read_to_string(path).ok())
    }

    fn needed(&self, file: &str) -> Result<String, Stop> {
        self.text(file).ok_or_else(|| Stop::Missing(file.to_owned()))
    }

    /// The `<cpu>` elements of a file.
    pub(super) fn cpus(&self, file: &str) -> Option<Vec<Cpu>> {
        let seen = cpusieve_formats::read(file, self.text(file)?.as_bytes()).snapshot;
        Some(seen.expansions.iter().filter_map(Cpu::of_expansion).collect())
    }

    /// Raw CPUID and MSRs.
    pub(super) fn raw(&self, file: &str) -> Result<cpusieve_model::Cpu, Stop> {
        let seen = cpusieve_formats::read(file, self.needed(file)?.as_bytes()).snapshot;
        seen.cpus.into_iter().next().ok_or_else(|| Stop::Wrong(format!("{file} was not read")))
    }

    /// A file of the shape of raw CPUID that holds features turned on or off.
    pub(super) fn mask(&self, file: &str, release: usize) -> Result<Set, Stop> {
        let text = self.needed(file)?;
        let mut cpu = cpusieve_model::Cpu::default();
        for element in text.split('<').filter(|element| element.starts_with("cpuid ") || element.starts_with("msr ")) {
            let number = |name: &str| {
                let value = element.split(&format!(" {name}='0x")).nth(1).and_then(|rest| rest.split('\'').next());
                value.map_or(0, |digits| u32::from_str_radix(digits, 16).unwrap())
            };
            let (eax, ebx, ecx, edx) = (number("eax"), number("ebx"), number("ecx"), number("edx"));
            if element.starts_with("msr ") {
                cpu.msrs
                    .insert(number("index"), cpusieve_model::MsrReading::Value(u64::from(edx) << 32 | u64::from(eax)));
            } else {
                let registers = cpusieve_model::Registers { eax, ebx, ecx, edx };
                assert_eq!(registers.get(Register::Edx), edx);
                cpu.cpuid.insert(number("eax_in"), number("ecx_in"), registers);
            }
        }
        Ok(Data::of_cpu(&cpu, release).features)
    }

    /// QEMU's replies: what it provides (`virQEMUCapsGetCPUModelX86Data`), and its models.
    pub(super) fn reply(&self, file: &str) -> Result<Reply, Stop> {
        let text = self.needed(file)?;
        let release = super::release();
        let in_map = |name: &str| {
            let places = qemu::by_name(name).map(|bit| bit.place);
            places.filter_map(|place| libvirt::at(release, place)).next()
        };
        let mut reply = Reply { data: Data::default(), models: Vec::new() };
        for value in serde_json::Deserializer::from_str(&text).into_iter::<Value>().map(Result::unwrap) {
            let told = &value["return"];
            if let Some(props) = told["model"]["props"].as_object() {
                let on = props.iter().filter(|(_, value)| **value == Value::Bool(true));
                reply.data.features = on.filter_map(|(name, _)| in_map(name)).collect();
                let vendor = props["vendor"].as_str();
                reply.data.vendor = VENDORS.iter().find(|known| Some(known.string) == vendor);
                let number = |name: &str| u32::try_from(props[name].as_u64().unwrap()).unwrap();
                reply.data.signature = Data::signature_of(number("family"), number("model"), number("stepping"));
            }
            for model in told.as_array().into_iter().flatten() {
                let blockers = model["unavailable-features"].as_array().into_iter().flatten();
                let blockers = blockers.filter_map(Value::as_str).filter_map(in_map);
                let blockers = blockers.filter_map(|at| libvirt::FEATURES.get(at)).map(|known| known.name().to_owned());
                reply.models.push(Allowed { name: text_of(&model["name"]), blockers: blockers.collect() });
            }
        }
        Ok(reply)
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or("").to_owned()
}
