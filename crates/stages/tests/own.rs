//! A kernel tree that a user imported and did not change boots and answers as the compiled-in tree of that release.
//!
//! The tree is what `CPUSIEVE_KERNELS` names: a folder of unpacked kernel trees, each called by its label. Where there is
//! none, the facts of the repository's tables stand for it, which proves all but the reading of the source.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "tests read files and say what they saw"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use cpusieve_formats::lab;
use cpusieve_import::stored::{Half, StoredTree};
use cpusieve_import::tables::kvm::KvmTables;
use cpusieve_import::tables::linux::LinuxTables;
use cpusieve_import::tables::{TableError, TreeList};
use cpusieve_knowledge::{linux, own};
use cpusieve_model::{MsrTable, Snapshot, Stage};
use cpusieve_stages::kvm::answer::{self, answer};
use cpusieve_stages::linux::boot::{Input, Output, Unlisted, boot};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The facts of a compiled-in tree, as the repository's tables have them.
fn compiled(label: &str) -> StoredTree {
    let text = |path: String| fs::read_to_string(root().join("knowledge").join(path)).unwrap();
    let trees = TreeList::parse("trees.tsv", &text("linux/trees.tsv".to_owned())).unwrap();
    let linux = LinuxTables::parse(&trees, &|file: &str| Some(text(format!("linux/{file}")))).unwrap();
    let kvm = KvmTables::parse(&trees, |file| Ok::<_, TableError>(text(format!("kvm/{file}")))).unwrap();
    let tree = trees.position(label).unwrap();
    StoredTree {
        version: trees.trees[tree].version.clone(),
        release: None,
        source: "the repository's tables".to_owned(),
        linux: Some(linux.facts(tree).unwrap()),
        kvm: kvm.facts(tree),
    }
}

/// The tree of a label, read from its source where that is at hand.
fn tree_of(label: &str) -> StoredTree {
    let folder = std::env::var_os("CPUSIEVE_KERNELS").map(|folder| Path::new(&folder).join(label));
    let Some(folder) = folder.filter(|folder| folder.join("Makefile").exists()) else {
        eprintln!("{label}: the source was not read: CPUSIEVE_KERNELS names no folder with this tree");
        return compiled(label);
    };
    let source =
        |path: &str| fs::read(folder.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let mut tree = StoredTree::import(&source, Half::Linux, "its source").unwrap();
    tree.kvm = StoredTree::import(&source, Half::Kvm, "its source").unwrap().kvm;
    tree
}

/// A capture by its file's name.
type Capture = (String, Snapshot);

/// All captures, by the compiled-in tree of their kernel.
fn captures() -> BTreeMap<usize, Vec<Capture>> {
    let files =
        |folder: &str| fs::read_dir(root().join("corpus").join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = ["guests-tcg", "guests-bochs", "guests-kvm"].into_iter().flat_map(files).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    let mut all = BTreeMap::<usize, Vec<Capture>>::new();
    for path in paths {
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let packed = std::mem::take(&mut bytes);
            flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let snapshot = lab::capture(&name, &bytes).parsed.snapshot;
        let release = snapshot.linux.as_ref().and_then(|linux| linux.release.clone());
        let Some(release) = release.filter(|_| snapshot.first_cpuid().is_some()) else { continue };
        all.entry(linux::nearest(&release).tree).or_default().push((name, snapshot));
    }
    all
}

/// Of such a tree nothing can be expected but that it harms nobody.
#[test]
fn a_tree_of_almost_nothing_boots() {
    let mut empty = compiled("6.12");
    let facts = empty.linux.as_mut().unwrap();
    (facts.ncapints, facts.nbugints, facts.nvmxints) = (24, 0, 0);
    facts.features.truncate(1);
    for list in [&mut facts.bugs, &mut facts.vmx_flags] {
        list.clear();
    }
    (facts.words, facts.scattered, facts.dependencies, facts.levels) = (vec![], vec![], vec![], vec![]);
    let kvm = empty.kvm.as_mut().unwrap();
    (kvm.caps, kvm.adjusts, kvm.leaf_caps, kvm.pv, kvm.handled) = (vec![], vec![], vec![], vec![], vec![0xffff_ffff]);
    assert_eq!(empty.check(), Ok(()));
    let tree = own::register("almost-nothing", &empty).unwrap();
    let captures = captures();
    for (name, snapshot) in captures.values().flat_map(|captures| captures.iter().take(8)) {
        let input = Input::of_snapshot("guest", Stage::Guest, snapshot).unwrap();
        let output = boot(&input, tree);
        assert!(output.flags.len() <= 1, "{name}: {:?}", output.flags);
        assert!(kvm_on(snapshot, &output, tree).view.emulated.is_none_or(|entries| entries.len() < 256));
    }
}

/// KVM of a tree, on a host that has booted it.
fn kvm_on(snapshot: &Snapshot, host: &Output, tree: usize) -> answer::Output {
    let (msrs, params) = (MsrTable::default(), BTreeMap::new());
    let input = answer::Input {
        of: "host",
        cpuid: &snapshot.first_cpuid().unwrap().cpuid,
        msrs: &msrs,
        unlisted: Unlisted::Zero,
        kernels: std::slice::from_ref(host),
        cmdline: None,
        config: None,
        params: &params,
        permitted: 0,
    };
    answer(&input, tree)
}

/// All that a boot concludes, but for the trees of rows.
fn gist(output: &Output) -> String {
    format!("{:?} {:?} {:?} {:?} {:?}", output.flags, output.hidden, output.bugs, output.vmx_flags, output.assumed)
}

#[test]
fn an_unchanged_tree_boots_as_the_compiled_one() {
    let (mut boots, mut answers) = (BTreeMap::new(), 0);
    // Before anything is registered: a release of the tree's own version would then be the registered one's.
    let captures = captures();
    for label in ["5.10", "6.1", "6.12", "7.2", "7.3"] {
        let tree = linux::TREES.iter().position(|tree| tree.label == label).unwrap();
        let found = captures.get(&tree).map_or(&[][..], Vec::as_slice);
        let same = own::register(&format!("boots-{label}"), &tree_of(label)).unwrap();
        for (name, snapshot) in found {
            let input = Input::of_snapshot("guest", Stage::Guest, snapshot).unwrap();
            let input = Input { unlisted: Unlisted::Zero, ..input };
            let (before, after) = (boot(&input, tree), boot(&input, same));
            assert_eq!(gist(&before), gist(&after), "{name}");
            assert_eq!(before.steps, after.steps, "{name}");
            let (kvm_before, kvm_after) = (kvm_on(snapshot, &before, tree), kvm_on(snapshot, &after, same));
            answers += usize::from(kvm_before.view.supported.is_some());
            assert_eq!(kvm_before, kvm_after, "{name}: KVM");
        }
        boots.insert(label, found.len());
    }
    eprintln!("the same boots: {boots:?}; the same answers of KVM: {answers}");
    assert!(answers > 10);
    assert!(boots["6.12"] > 10, "{boots:?}");
}
