//! A CPU map in a handful of lines: what is read of it, and that the tables give it back.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads the tables")]

use cpusieve_import::libvirt::{LibvirtError, LibvirtFacts, Mark, print_place};
use cpusieve_import::tables::libvirt::LibvirtTables;
use cpusieve_import::tables::{TreeList, TreeSet};

const INDEX: &str = "<cpus><arch name='x86'><include filename='v.xml'/><include filename='f.xml'/>
  <group name='all'><include filename='one.xml'/><include filename='two.xml'/></group></arch>
  <arch name='arm'><include filename='nosuch.xml'/></arch></cpus>";
const VENDORS: &str = "<cpus><vendor name='V' string='VVVVVVVVVVVV'/></cpus>";
const FEATURES: &str = "<cpus><!-- <feature name='commented'> -->
  <feature name='far'><alias name='q-far' source='qemu'/><cpuid eax_in='0x07' ecx_in='0x01' edx='0x00000010'/></feature>
  <feature name='near'><cpuid eax_in='0x01' ecx='0x00000001'/></feature>
  <feature name='fixed' migratable='no'><msr index='0x10a' edx='0x00000001' eax='0x00000000'/></feature></cpus>";
const ONE: &str = "<cpus><model name='One'><check partial='compat'/><decode host='on' guest='on'/>
  <signature family='6' model='85' stepping='0-4'/><signature family='6' model='86'/><vendor name='V'/>
  <feature name='near'/><feature name='far' removed='yes'/><feature name='fixed' added='yes'/></model></cpus>";
const TWO: &str = "<cpus><model name='One-v2'><decode host='on' guest='off'/><model name='One'/></model></cpus>";

fn tree(path: &str) -> Option<String> {
    let text = match path.strip_prefix("src/cpu_map/")? {
        "index.xml" => INDEX,
        "v.xml" => VENDORS,
        "f.xml" => FEATURES,
        "one.xml" => ONE,
        "two.xml" => TWO,
        _ => return None,
    };
    Some(text.to_owned())
}

#[test]
fn a_map_is_read() {
    let facts = LibvirtFacts::read(&tree).unwrap();
    assert_eq!(facts.broken_laws(), [""; 0]);
    let features: Vec<_> =
        facts.features.iter().map(|f| (f.name.as_str(), print_place(f.place), f.migratable)).collect();
    assert_eq!(
        features,
        [("near", "1.ECX[0]".into(), true), ("far", "7.1.EDX[4]".into(), true), ("fixed", "MSR 10A[32]".into(), false)]
    );
    let [one, two] = &facts.models[..] else { panic!("{:?}", facts.models) };
    assert_eq!((one.host, one.guest, two.host, two.guest), (true, true, true, false));
    assert_eq!((one.base.as_deref(), two.base.as_deref(), two.vendor.as_deref()), (None, Some("One"), None));
    assert_eq!((one.signatures[0].steppings.as_str(), one.signatures[1].model), ("0-4", 86));
    let words: Vec<_> = facts.words.iter().map(|word| (word.mark, word.register.as_str())).collect();
    assert_eq!(words, [(Mark::Own, "1.ECX"), (Mark::Added, "MSR 10A"), (Mark::Removed, "7.1.EDX")]);
}

#[test]
fn the_tables_give_it_back() {
    let facts = LibvirtFacts::read(&tree).unwrap();
    let releases = TreeList::parse("releases.tsv", "9.0 9.0.0 x\n11.3 11.3.0 x\n").unwrap();
    let tables = LibvirtTables::of(&[LibvirtFacts { models: Vec::new(), ..facts.clone() }, facts.clone()]);
    assert!(tables.models.iter().all(|row| row.trees == TreeSet::one(1)));
    let files = tables.print(&releases);
    let read = |file: &str| files.iter().find(|(name, _)| *name == file).map(|(_, text)| text.clone());
    let again = LibvirtTables::parse(&releases, &read).unwrap();
    assert_eq!((&again, again.facts(1)), (&tables, facts));
}

#[test]
fn what_is_not_understood_is_named() {
    let changed = |from: &'static str, to: &'static str| {
        let tree = move |path: &str| tree(path).map(|text| text.replace(from, to));
        LibvirtFacts::read(&tree).unwrap_err().to_string()
    };
    assert_eq!(
        changed("eax_in='0x01' ecx='0x00000001'", "eax_in='0x01' ecx='0x3'"),
        "src/cpu_map/f.xml: the feature near has 2 bits; expected one"
    );
    assert_eq!(
        changed("<feature name='near'/>", "<feature name='what'/>"),
        "src/cpu_map/one.xml: the feature what is unknown"
    );
    assert_eq!(changed("<vendor name='V'/>", "<colour/>"), "src/cpu_map/one.xml: <colour> in the model One");
    assert_eq!(LibvirtFacts::read(&|_: &str| None), Err(LibvirtError::Missing("src/cpu_map/index.xml".to_owned())));
    let backwards = |path: &str| tree(path).map(|text| text.replace("<model name='One'/>", "<model name='Two'/>"));
    let laws = LibvirtFacts::read(&backwards).unwrap().broken_laws();
    assert_eq!(laws, ["One-v2 is made of Two, which does not stand before it"]);
}

#[test]
fn the_stored_tables_are_canonical() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../knowledge/libvirt");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    let releases = TreeList::parse("releases.tsv", &read("releases.tsv").unwrap()).unwrap();
    let tables = LibvirtTables::parse(&releases, &read).unwrap();
    let facts: Vec<LibvirtFacts> = (0..releases.trees.len()).map(|release| tables.facts(release)).collect();
    assert!(facts.iter().all(|facts| facts.broken_laws().is_empty()));
    for (file, text) in LibvirtTables::of(&facts).print(&releases) {
        assert_eq!(Some(text), read(file), "{file}");
    }
}
