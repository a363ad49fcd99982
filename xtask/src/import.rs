//! `cargo xtask import`: from a kernel's, QEMU's or libvirt's source tree, a QEMU binary or a measurement, into `knowledge/`, and whether `knowledge/` is in order.

mod binary;
mod libvirt;
mod price;
mod qemu;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cpusieve_import::kvm::KvmFacts;
use cpusieve_import::linux::{self, LinuxFacts};
use cpusieve_import::tables::kvm::KvmTables;
use cpusieve_import::tables::linux::LinuxTables;
use cpusieve_import::tables::{TableError, Tree, TreeList};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// `linux DIR`, `kvm DIR`, `qemu DIR`, `libvirt DIR`, `check`.
pub(crate) fn run(args: &[String]) -> Result<ExitCode> {
    let root = super::root().join("knowledge");
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["check"] => check(&root),
        ["price", file] => price::import(&root, file),
        ["linux", dir, ref options @ ..] => import(&root, &Request::new(Half::Linux, dir, options)?),
        ["kvm", dir, ref options @ ..] => import(&root, &Request::new(Half::Kvm, dir, options)?),
        ["qemu", "--binary", path, ref options @ ..] => {
            binary::import(&root, &Request::new(Half::Qemu, path, options)?)
        }
        ["libvirt", dir, ref options @ ..] => libvirt::import(&root, &Request::new(Half::Libvirt, dir, options)?),
        ["qemu", dir, ref options @ ..] => qemu::import(&root, &Request::new(Half::Qemu, dir, options)?),
        _ => {
            eprintln!("usage: cargo xtask import linux|kvm|qemu|libvirt DIR [--label L] [--source TEXT] [--check]");
            eprintln!("       cargo xtask import qemu --binary PATH [--label L] [--check]");
            eprintln!("       cargo xtask import price FILE");
            eprintln!("       cargo xtask import check");
            Ok(ExitCode::from(2))
        }
    }
}

/// Which facts of a tree are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Linux,
    Kvm,
    Qemu,
    Libvirt,
}

/// What to read, under which label.
struct Request {
    half: Half,
    folder: PathBuf,
    label: Option<String>,
    source: Option<String>,
    check: bool,
}

impl Request {
    fn new(half: Half, folder: &str, options: &[&str]) -> Result<Self> {
        let mut request = Self { half, folder: folder.into(), label: None, source: None, check: false };
        let mut options = options.iter();
        while let Some(&option) = options.next() {
            let mut value = || options.next().map(|&text| text.to_owned()).ok_or(format!("{option} needs a value"));
            match option {
                "--label" => request.label = Some(value()?),
                "--source" => request.source = Some(value()?),
                "--check" => request.check = true,
                _ => return Err(format!("unknown option {option}").into()),
            }
        }
        Ok(request)
    }
}

/// Everything in `knowledge/` that is read from kernel trees; the n-th facts are those of the n-th tree.
struct Knowledge {
    trees: TreeList,
    linux: Vec<LinuxFacts>,
    kvm: Vec<Option<KvmFacts>>,
}

impl Knowledge {
    fn read(root: &Path) -> Result<Self> {
        let trees = TreeList::parse("linux/trees.tsv", &text(&root.join("linux/trees.tsv"))?)?;
        let all = 0..trees.trees.len();
        let tables = LinuxTables::parse(&trees, &|file: &str| fs::read_to_string(root.join("linux").join(file)).ok())?;
        let linux = all.clone().map(|tree| tables.facts(tree)).collect::<std::result::Result<_, _>>()?;
        let tables = KvmTables::parse(&trees, |file| {
            let fail = |error| TableError { file: file.to_owned(), line: 0, what: format!("cannot be read: {error}") };
            fs::read_to_string(root.join("kvm").join(file)).map_err(fail)
        })?;
        let kvm = all.map(|tree| tables.facts(tree)).collect();
        Ok(Self { trees, linux, kvm })
    }

    /// The canonical text of every table, by its path below `knowledge/`.
    fn files(&self) -> Vec<(String, String)> {
        let mut files = vec![("linux/trees.tsv".to_owned(), self.trees.print())];
        let linux = LinuxTables::of(&self.linux).print(&self.trees);
        files.extend(linux.into_iter().map(|(file, text)| (format!("linux/{file}"), text)));
        let kvm = KvmTables::of(&self.kvm).print(&self.trees);
        files.extend(kvm.into_iter().map(|(file, text)| (format!("kvm/{file}"), text)));
        files
    }

    /// Puts a tree's facts in, or replaces them. A tree that is new here, or whose version differs, is read as a whole:
    /// the two halves of a tree are one release.
    fn import(&mut self, request: &Request) -> Result<Tree> {
        let source = |path: &str| {
            fs::read(request.folder.join(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        };
        let version = linux::version(&source)?;
        let label = request.label.clone().unwrap_or_else(|| release(&version));
        let known = self.trees.position(&label);
        let same = known.and_then(|tree| self.trees.trees.get(tree)).is_some_and(|tree| tree.version == version);
        let read_linux = || -> Result<LinuxFacts> {
            let facts = LinuxFacts::read(&source)?;
            match facts.broken_laws()[..] {
                [] => Ok(facts),
                ref laws => Err(format!("the tree was misread: {}", laws.join("; ")).into()),
            }
        };
        let tree = match known {
            Some(tree) => tree,
            None => {
                let origin = request.source.clone().unwrap_or_else(|| "local tree".to_owned());
                let (facts, kvm) = (read_linux()?, KvmFacts::read(&source)?);
                let entry = Tree { label, version: version.clone(), source: origin };
                let tree = self.trees.insert(entry).ok_or("there is room for 64 trees, and all are taken")?;
                self.linux.insert(tree, facts);
                self.kvm.insert(tree, Some(kvm));
                tree
            }
        };
        if known.is_some() && (request.half == Half::Linux || !same) {
            self.linux[tree] = read_linux()?;
        }
        if known.is_some() && (request.half == Half::Kvm || !same) {
            self.kvm[tree] = Some(KvmFacts::read(&source)?);
        }
        let entry = &mut self.trees.trees[tree];
        entry.version = version;
        if let Some(origin) = &request.source {
            entry.source.clone_from(origin);
        }
        Ok(entry.clone())
    }
}

fn import(root: &Path, request: &Request) -> Result<ExitCode> {
    let mut knowledge = Knowledge::read(root)?;
    let tree = knowledge.import(request)?;
    let mut differences = Vec::new();
    for (path, new) in knowledge.files() {
        let old = fs::read_to_string(root.join(&path)).unwrap_or_default();
        differences.extend(differing(&path, &old, &new));
        if old != new && !request.check {
            fs::write(root.join(&path), new)?;
        }
    }
    Ok(finish(&tree, &differences, request.check))
}

/// Says what differs, and whether that was changed or is a fault.
fn finish(tree: &Tree, differences: &[String], check: bool) -> ExitCode {
    differences.iter().for_each(|line| println!("{line}"));
    let verdict = match (differences.is_empty(), check) {
        (true, _) => "nothing differs",
        (false, true) => "the tables differ from the tree",
        (false, false) => "the tables were changed",
    };
    println!("{tree}: {verdict}");
    if check && !differences.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Whether all tables are canonical and all laws hold.
fn check(root: &Path) -> Result<ExitCode> {
    let knowledge = Knowledge::read(root)?;
    let mut files = knowledge.files();
    files.extend(qemu::tables(root)?.print().into_iter().map(|(file, text)| (format!("qemu/{file}"), text)));
    let libvirt = libvirt::Libvirt::read(root)?;
    files.extend(libvirt.files());
    let mut faults = libvirt.faults();
    for (path, canonical) in &files {
        faults.extend(differing(path, &text(&root.join(path))?, canonical));
    }
    let trees = &knowledge.trees.trees;
    for pair in trees.windows(2).filter(|pair| pair[0].release() > pair[1].release()) {
        faults.push(format!("linux/trees.tsv: {} stands before {}", pair[0], pair[1]));
    }
    for (index, tree) in trees.iter().enumerate() {
        if knowledge.trees.position(&tree.label) != Some(index) {
            faults.push(format!("linux/trees.tsv: the label {} stands twice", tree.label));
        }
        if knowledge.kvm[index].is_none() {
            faults.push(format!("kvm: no facts for {tree}"));
        }
        faults.extend(knowledge.linux[index].broken_laws().into_iter().map(|law| format!("linux, {tree}: {law}")));
    }
    faults.iter().for_each(|line| println!("{line}"));
    println!("{} tables, {} trees, {} faults", files.len(), trees.len(), faults.len());
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The rows that only one text has, as in a diff; or that the texts say the same in another form.
fn differing(path: &str, old: &str, new: &str) -> Vec<String> {
    // Columns grow and shrink with their cells: that is no difference of a row.
    let rows =
        |text: &str| text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>();
    let (old_rows, new_rows) = (rows(old), rows(new));
    let only = |these: &[String], those: &[String], sign: char| {
        let lines = these.iter().filter(|row| !those.contains(row));
        lines.map(|row| format!("{path}: {sign} {row}")).collect::<Vec<_>>()
    };
    let mut lines = only(&old_rows, &new_rows, '-');
    lines.extend(only(&new_rows, &old_rows, '+'));
    if lines.is_empty() && old != new {
        lines.push(format!("{path}: same rows, but not in canonical order and columns"));
    }
    lines
}

/// The first two numbers of a version.
fn release(version: &str) -> String {
    version.splitn(3, ['.', '-']).take(2).collect::<Vec<_>>().join(".")
}

fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_differ_by_their_cells() {
        assert!(differing("t", "a  b\n", "a b\n").iter().all(|line| line.contains("canonical")));
        assert_eq!(differing("t", "a b\nc d\n", "c  d\ne f\n"), ["t: - a b", "t: + e f"]);
        assert!(differing("t", "a\n", "a\n").is_empty());
    }

    #[test]
    fn releases() {
        assert_eq!(
            (release("6.1.176"), release("7.4-rc1"), release("6.19")),
            ("6.1".into(), "7.4".into(), "6.19".into())
        );
    }

    #[test]
    fn options() {
        let request = Request::new(Half::Linux, "d", &["--label", "x", "--check"]).unwrap();
        assert!(request.check && request.label.as_deref() == Some("x"));
        assert!(Request::new(Half::Kvm, "d", &["--label"]).is_err());
        assert!(Request::new(Half::Kvm, "d", &["--what"]).is_err());
    }
}
