//! What a page must be: whole, well-formed, and deaf to what its inputs would like it to run.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests read files")]

use std::collections::HashSet;
use std::path::Path;

use cpusieve_answers::diff::{self, Kept};
use cpusieve_answers::predict::way::{Route, until_guest};
use cpusieve_model::{Cpu, Cpuinfo, FlagList, KvmView, Registers, Snapshot, Stage};
use cpusieve_report::{
    Body, Cell, Ends, Fate, Page, Predicted, Side, Ways, html, of_diff, of_prediction, of_rehearsal, svg,
};

fn line(flags: &str) -> Snapshot {
    let cpuinfo = Cpuinfo { flags: Some(FlagList::from_line(flags)), ..Cpuinfo::default() };
    Snapshot { cpus: vec![Cpu { cpuinfo: Some(cpuinfo), ..Cpu::default() }], ..Snapshot::default() }
}

fn example(name: &str) -> Snapshot {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/examples").join(name);
    cpusieve_formats::read(name, &std::fs::read(path).unwrap()).snapshot
}

fn page(first: &Snapshot, second: &Snapshot) -> Page {
    of_diff(&Ends { first: ("a", first), second: ("b", second) }, "{\"format\":1}".to_owned()).unwrap()
}

fn ways(page: &Page) -> &Ways {
    match &page.body {
        Body::Ways(ways) => ways,
        Body::Hosts(_) | Body::Chart(_) => panic!("another page"),
    }
}

/// The page as XML: elements that HTML leaves open are closed, and what is no markup is taken out.
fn as_xml(text: &str) -> String {
    let mut rest = text.strip_prefix("<!DOCTYPE html>").unwrap_or(text);
    let mut xml = String::new();
    while let Some(at) = rest.find('<') {
        xml.push_str(&rest[..at]);
        let end = at + rest[at..].find('>').unwrap() + 1;
        let tag = &rest[at..end];
        let name: String = tag[1..].chars().take_while(char::is_ascii_alphanumeric).collect();
        let void = ["meta", "input", "wbr"].contains(&&*name);
        xml.push_str(&if void { format!("{}/>", tag.trim_end_matches('>')) } else { tag.to_owned() });
        rest = &rest[end..];
        if name == "script" || name == "style" {
            rest = &rest[rest.find(&format!("</{name}>")).unwrap()..];
        }
    }
    xml.push_str(rest);
    xml
}

fn count(document: &roxmltree::Document<'_>, holds: impl Fn(&roxmltree::Node<'_, '_>) -> bool) -> usize {
    document.descendants().filter(|node| node.is_element() && holds(node)).count()
}

#[test]
fn every_feature_of_a_diff_stands_in_the_page_once() {
    let (host, guest) = (example("hybrid-host.flags"), example("hybrid-guest.flags"));
    for (first, second) in [(&host, &guest), (&guest, &host), (&host, &host)] {
        let found = diff::diff(first, second).unwrap();
        let page = page(first, second);
        let ways = ways(&page);
        let names: HashSet<&str> = ways.ways.iter().map(|way| way.feature.as_str()).collect();
        assert_eq!(names.len(), ways.ways.len(), "each feature once");
        let of = |fate| ways.ways.iter().filter(move |way| way.fate == fate).map(|way| way.feature.as_str());
        assert!(of(Fate::Lost).eq(found.lost.iter().map(|item| item.flag.as_str())));
        assert!(of(Fate::Gained).eq(found.gained.iter().map(|item| item.flag.as_str())));
        assert_eq!(ways.count(Fate::Kept), found.kept);

        let text = html(&page);
        let xml = as_xml(&text);
        let document = roxmltree::Document::parse(&xml).unwrap();
        let rows = |fate: &str| {
            count(&document, |node| {
                node.attribute("class") == Some("way") && node.parent().unwrap().attribute("class") == Some(fate)
            })
        };
        assert_eq!((rows("lost"), rows("gained"), rows("kept")), (found.lost.len(), found.gained.len(), found.kept));
        assert!(text.len() <= 500_000, "{} bytes", text.len());
    }
}

#[test]
fn what_both_ends_show_is_counted_as_the_diff_counts_it() {
    let (host, guest) = (example("hybrid-host.flags"), example("hybrid-guest.flags"));
    let kept = diff::kept(&host, &guest).unwrap();
    assert_eq!(kept.len(), diff::diff(&host, &guest).unwrap().kept);
    let ended = |kept: &&Kept| kept.steps.last().is_some_and(|step| step.effect == cpusieve_model::Effect::Dropped);
    assert_eq!(kept.iter().find(ended), None, "what both show was not dropped last");
}

#[test]
fn the_picture_holds_every_way_that_ends_or_begins_in_it() {
    let page = page(&example("hybrid-host.flags"), &example("hybrid-guest.flags"));
    let picture = svg(&page);
    let document = roxmltree::Document::parse(&picture).unwrap();
    assert!(
        document.root_element().children().any(|node| node.has_tag_name("style") || node.tag_name().name() == "style")
    );
    let shown: Vec<&str> = document.descendants().filter_map(|node| node.attribute("data-f")).collect();
    for (at, way) in ways(&page).ways.iter().enumerate() {
        let times = shown.iter().filter(|shown| **shown == at.to_string()).count();
        let expected = [Side::Enters, Side::Leaves].into_iter().filter(|&side| way.cause(side).is_some()).count();
        assert_eq!(times, expected, "{}", way.feature);
    }
    let members: usize = ways(&page).groups(Side::Leaves).iter().map(|group| group.members.len()).sum();
    assert_eq!(members, ways(&page).count(Fate::Lost));
}

#[test]
fn names_from_an_input_are_text_and_nothing_else() {
    let evil = [
        "</script><script>alert(1)</script>",
        "<img/src=x/onerror=alert(1)>",
        "\"onclick=\"alert(1)",
        "'--><svg/onload=alert(1)>",
        "&lt;b&gt;",
        "</style></title></svg>",
        "\u{2028}\u{202e}",
        "]]>",
    ];
    let host = line(&format!("fpu tsc msr acpi mmx sse sse2 lm cpuid pni vmx {}", evil.join(" ")));
    let guest = line("fpu tsc msr mmx sse sse2 lm cpuid pni vmx hypervisor");
    let page = of_diff(
        &Ends { first: ("<script>alert(2)</script>", &host), second: ("\"><b>", &guest) },
        "{\"flag\":\"</script><script>alert(3)</script>\"}".to_owned(),
    )
    .unwrap();
    let text = html(&page);
    assert_eq!(text.matches("<script").count(), 3, "the data, the answer and the page's own");
    assert_eq!(text.matches("</script>").count(), 3);
    let xml = as_xml(&text);
    let document = roxmltree::Document::parse(&xml).unwrap();
    assert_eq!(
        count(&document, |node| ["img", "b"].contains(&node.tag_name().name()) && node.attribute("src").is_some()),
        0
    );
    let handlers =
        |node: &roxmltree::Node<'_, '_>| node.attributes().any(|attribute| attribute.name().starts_with("on"));
    assert_eq!(count(&document, handlers), 0);
    let rows: HashSet<&str> = document
        .descendants()
        .filter(|node| node.attribute("class") == Some("way"))
        .filter_map(|node| node.first_element_child()?.text())
        .collect();
    for name in evil.iter().filter(|name| **name != "\u{2028}\u{202e}") {
        assert!(rows.contains(name), "{name} in {rows:?}");
    }
    roxmltree::Document::parse(&svg(&page)).unwrap();
}

#[test]
fn a_page_may_load_nothing_and_run_nothing_but_its_script() {
    let text = html(&page(&line("fpu tsc acpi"), &line("fpu tsc hypervisor")));
    assert!(text.contains("default-src &#39;none&#39;") || text.contains("default-src 'none'"));
    assert!(text.contains("script-src 'sha256-") || text.contains("script-src &#39;sha256-"));
    for address in ["http://", "https://", "//cdn", "@import", "url(http"] {
        let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains(address), "{address}");
    }
}

#[test]
fn one_hundred_and_forty_one_lost_flags_still_fit() {
    let host = example("hybrid-host.flags");
    let all: Vec<&str> = host.flags().unwrap().iter().collect();
    let page = page(&host, &line("fpu cpuid hypervisor"));
    assert!(all.len() > 100 && ways(&page).count(Fate::Lost) > 100);
    let picture = svg(&page);
    let document = roxmltree::Document::parse(&picture).unwrap();
    let height: f64 = document.root_element().attribute("height").unwrap().parse().unwrap();
    assert!(height < 1800.0, "{height}");
    assert!(html(&page).len() < 500_000);
}

/// AuthenticAMD, family 19H, with FPU, CMOV and SVM.
fn machine() -> Snapshot {
    let mut cpu = Cpu::default();
    cpu.cpuid.insert(0, 0, Registers { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 });
    cpu.cpuid.insert(1, 0, Registers { eax: 0x00a2_0f12, edx: 0x0040_8001, ..Registers::default() });
    cpu.cpuid.insert(0x8000_0000, 0, Registers { eax: 0x8000_0001, ..Registers::default() });
    cpu.cpuid.insert(0x8000_0001, 0, Registers { ecx: 1 << 2, edx: 1 << 29, ..Registers::default() });
    Snapshot { cpus: vec![cpu], kvm: None::<KvmView>, ..Snapshot::default() }
}

#[test]
fn a_prediction_is_drawn_from_its_own_steps() {
    let machine = machine();
    let found = until_guest(&machine, &Route::default()).unwrap();
    let kvm = found.vcpu.kvm.as_ref().unwrap();
    let steps = kvm.host.boot.steps.iter().chain(&kvm.steps).cloned();
    let steps: Vec<_> = steps.chain(found.vcpu.qemu.steps()).chain(found.guest.boot.steps.iter().cloned()).collect();
    let diff = found.against_host(&machine).unwrap();
    let predicted = Predicted {
        input: ("machine", &machine),
        until: Stage::Guest,
        steps,
        host: Some(&kvm.host),
        guest: Some(&found.guest),
        diff: Some(&diff),
        vmm: "QEMU".to_owned(),
        asked: None,
        assumed: &found.guest.assumed,
        doubts: Vec::new(),
    };
    let page = of_prediction(&predicted, "{}".to_owned());
    let ways = ways(&page);
    assert_eq!(
        (ways.count(Fate::Lost), ways.count(Fate::Gained), ways.count(Fate::Kept)),
        (diff.lost.len(), diff.gained.len(), diff.kept)
    );
    let acpi = ways.ways.iter().find(|way| way.feature == "acpi").unwrap();
    assert_eq!(acpi.leaves.as_ref().unwrap().at, Some(Stage::Kvm));
    assert_eq!(acpi.cells()[2], Cell::Did(cpusieve_model::Effect::Dropped));
    roxmltree::Document::parse(&as_xml(&html(&page))).unwrap();
    roxmltree::Document::parse(&svg(&page)).unwrap();
}

/// An upgrade of two guests: one loses a bit without a name, both gain a feature.
const REHEARSAL: &str = r#"{"format": 1, "vmm": "QEMU",
 "before": {"host_kernel": "6.1", "vmm": "7.2"}, "after": {"host_kernel": "6.12", "vmm": "10.0"},
 "hosts": [{"host": "a.json", "flags": {"gained": [], "lost": ["tme"]}, "doubts": ["<b>odd</b>"], "guests": [
  {"guest": "one", "stays": false, "before": {"flags": ["fpu", "tsc"]}, "after": {"flags": ["fpu", "tsc", "flush_l1d"]},
   "gained": [{"feature": "flush_l1d", "bit": "CPUID.(EAX=07H,ECX=0):EDX[28]", "at": "kvm", "by": "both", "until_then": true,
     "since": {"without": "6.1", "with": "6.12"}, "rule": "KVM0113", "title": "offered from 6.4 on", "cause": "`why`", "cite": "a:b",
     "steps": {"before": {"at": "kvm", "effect": "dropped", "rule": "KVM0113", "cite": "a:b", "because": []}, "after": null}}],
   "lost": [{"feature": null, "bit": "CPUID.0DH:EAX[17]", "at": "qemu", "by": "vmm", "rule": "", "title": "gone", "cause": "", "cite": ""}],
   "changed": [], "start": {"possible": true}, "migrate": {"forth": {"possible": false, "why": ["it <i>cannot</i>"]}, "back": null},
   "pinned": null, "assumed": []},
  {"guest": "two", "stays": true, "before": {"flags": ["fpu"]}, "after": {"flags": ["fpu"]},
   "gained": [{"feature": "flush_l1d", "at": "kvm", "by": "both", "rule": "KVM0113", "title": "offered from 6.4 on"}]}]}],
 "order": null, "commands": [{"when": "after", "what": "pin", "lines": ["-cpu host"]}], "skipped": []}"#;

#[test]
fn an_upgrade_is_shown_once_for_all_guests() {
    let page = of_rehearsal(REHEARSAL.to_owned()).unwrap();
    assert_eq!(page.title, "Linux 6.1 → 6.12, QEMU 7.2 → 10.0");
    let ways = ways(&page);
    let named = |fate| ways.ways.iter().filter(move |way| way.fate == fate).map(|way| way.feature.as_str());
    assert!(named(Fate::Gained).eq(["flush_l1d"]));
    assert!(named(Fate::Lost).eq(["CPUID.0DH:EAX[17]"]));
    assert!(named(Fate::Kept).eq(["fpu"]), "what every guest prints before and after");
    let cause = ways.ways.iter().find_map(|way| way.enters.as_ref()).unwrap();
    assert_eq!(
        cause.text,
        "For 2 of 2 guests. By kernel and VMM together, since 6.12 (6.1 is as before). Until then: `why`"
    );
    let xml = as_xml(&html(&page));
    let document = roxmltree::Document::parse(&xml).unwrap();
    assert_eq!(count(&document, |node| node.has_tag_name("i")), 6, "the legend's marks alone");
    roxmltree::Document::parse(&svg(&page)).unwrap();
}

#[test]
fn what_is_no_rehearsal_is_refused() {
    for text in
        ["", "{", "[]", "{\"format\": 1}", "{\"format\": 2, \"hosts\": [], \"before\": {}, \"after\": {}}", "null"]
    {
        assert!(of_rehearsal(text.to_owned()).is_err(), "{text}");
    }
    // Anything may be missing from the rest.
    let bare =
        "{\"format\": 1, \"before\": {}, \"after\": {}, \"hosts\": [{\"guests\": [null, 3, {\"gained\": [7, {}]}]}]}";
    assert!(html(&of_rehearsal(bare.to_owned()).unwrap()).ends_with("</html>"));
}
