//! Real kernels: from the laboratory's cache, or from the distribution's archive through a package manager that has
//! its configuration, lists and downloads in the cache. The system's own sources are neither read nor touched.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::bounded;
use super::modules::{self, Module};
use super::qemu::Qemu;

/// Suites of Debian that ship cloud kernels between 5.10 and the newest.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bullseye main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bullseye-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security trixie-security main
";

/// Where a cached kernel's KVM lies.
const KVM: &str = "kvm";

/// What a package of a kernel image is called around the release.
const PACKAGE: (&str, &str) = ("linux-image-", "-cloud-amd64");

/// Parts that newer releases ship in packages of their own: the image, its configuration, its modules.
const PARTS: [&str; 3] = ["linux-binary-", "linux-base-", "linux-modules-"];

const UPDATE: Duration = Duration::from_secs(120);
const DOWNLOAD: Duration = Duration::from_secs(240);

/// A kernel, unpacked.
pub(super) struct Kernel {
    /// `6.1.0-56-cloud-amd64`
    pub(super) release: String,
    /// The compressed image that boots.
    pub(super) image: PathBuf,
    /// The `msr` module; `None` if the kernel has none, or has it built in.
    pub(super) msr: Option<Vec<u8>>,
    /// The options of its configuration on which CPU features hang.
    pub(super) config: BTreeMap<String, String>,
}

/// Kernels by series (`6.1`) or release, from a cache folder and the archive behind it.
pub(super) struct Archive {
    cache: PathBuf,
    /// Where the package manager looks.
    sources: String,
    /// Whether the lists of packages were fetched by this run.
    updated: bool,
}

impl Archive {
    pub(super) fn new(cache: &Path) -> Self {
        Self::of_sources(cache, SOURCES.to_owned())
    }

    /// The same behind other sources.
    pub(super) fn of_sources(cache: &Path, sources: String) -> Self {
        Self { cache: cache.to_owned(), sources, updated: false }
    }

    /// Fetches the files of a source package into a folder.
    pub(super) fn source(&mut self, package: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
        self.update()?;
        let mut fetch = self.apt("apt-get");
        fetch.args(["source", "--download-only", "--quiet", package]).current_dir(folder);
        bounded::must(&mut fetch, DOWNLOAD).map(|_| ())
    }

    /// The newest kernel of a series, or the one of a full release: a cached one if there is one.
    pub(super) fn kernel(&mut self, wanted: &str) -> Result<Kernel, Box<dyn Error>> {
        if let Some(release) = newest(wanted, self.cached()) {
            return self.load(&release);
        }
        self.update()?;
        let names = bounded::must(self.apt("apt-cache").args(["pkgnames", PACKAGE.0]), UPDATE)?;
        let releases = names.lines().filter(|name| name.ends_with(PACKAGE.1));
        let releases: Vec<_> = releases.filter_map(|name| name.strip_prefix(PACKAGE.0)).map(str::to_owned).collect();
        let release = newest(wanted, releases).ok_or_else(|| format!("the archive has no cloud kernel {wanted}"))?;
        println!("fetching {release}");
        self.fetch(&release)?;
        self.load(&release)
    }

    /// A kernel's KVM for AMD and the modules that it needs, each behind those that it needs itself.
    pub(super) fn kvm(&mut self, release: &str) -> Result<Vec<Module>, Box<dyn Error>> {
        let folder = self.cache.join("kernels").join(release).join(KVM);
        if !folder.is_dir() {
            self.update()?;
            println!("fetching the modules of {release}");
            self.fetch(release)?;
        }
        modules::load(&folder)
    }

    /// The QEMU of a suite, unpacked with its libraries, firmware and loader.
    pub(super) fn qemu(&mut self, suite: &str) -> Result<Qemu, Box<dyn Error>> {
        let root = self.cache.join("qemu").join(suite);
        if !root.is_dir() {
            self.update()?;
            println!("fetching QEMU of {suite} and its libraries");
            let parts = self.cache.join(format!("fetch-{}-qemu", std::process::id()));
            let done = self.fetch_qemu(&parts, suite, &root);
            fs::remove_dir_all(&parts)?;
            done?;
        }
        Qemu::unpacked(&root)
    }

    fn fetch_qemu(&self, parts: &Path, suite: &str, root: &Path) -> Result<(), Box<dyn Error>> {
        let (packages, part) = (parts.join("packages"), parts.join("root"));
        fs::create_dir_all(packages.join("partial"))?;
        fs::create_dir_all(&part)?;
        // For the package manager nothing is installed here, so it fetches everything that QEMU needs.
        let mut fetch = self.apt("apt-get");
        fetch.arg("-o").arg(format!("Dir::Cache::archives={}", packages.display()));
        fetch.args(["install", "--download-only", "--no-install-recommends", "--yes", "--quiet"]);
        bounded::must(fetch.args(["--target-release", suite, "qemu-system-x86"]), DOWNLOAD)?;
        for package in files(&packages).iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
            bounded::must(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&part), DOWNLOAD)?;
        }
        fs::create_dir_all(self.cache.join("qemu"))?;
        // It is in the cache whole or not at all.
        Ok(fs::rename(part, root)?)
    }

    /// A kernel that is here without a download: a cached one, or one that this machine boots from.
    pub(super) fn any_local(&self) -> Option<Kernel> {
        let cached = newest("", self.cached()).and_then(|release| self.load(&release).ok());
        cached.or_else(|| {
            let installed = releases_in(Path::new("/boot"), "vmlinuz-");
            installed.into_iter().find_map(|release| {
                let config = fs::read_to_string(format!("/boot/config-{release}")).ok()?;
                let image = PathBuf::from(format!("/boot/vmlinuz-{release}"));
                File::open(&image).ok()?;
                let msr = modules::one(&files(Path::new(&format!("/lib/modules/{release}"))), "msr").ok().flatten();
                Some(Kernel { image, msr, config: options(&config), release })
            })
        })
    }

    fn cached(&self) -> Vec<String> {
        releases_in(&self.cache.join("kernels"), "")
    }

    fn load(&self, release: &str) -> Result<Kernel, Box<dyn Error>> {
        let folder = self.cache.join("kernels").join(release);
        let config = fs::read_to_string(folder.join("config"))?;
        let msr = fs::read(folder.join("msr.ko")).ok();
        Ok(Kernel { release: release.to_owned(), image: folder.join("vmlinuz"), msr, config: options(&config) })
    }

    /// One of the package manager's programs, with a configuration that names nothing outside the cache.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.cache.join("apt/apt.conf")).current_dir(&self.cache);
        command
    }

    fn update(&mut self) -> Result<(), Box<dyn Error>> {
        if self.updated {
            return Ok(());
        }
        let apt = self.cache.join("apt");
        for folder in [
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
            "state/lists/partial",
            "cache/archives/partial",
        ] {
            fs::create_dir_all(apt.join(folder))?;
        }
        fs::write(apt.join("etc/sources.list"), &self.sources)?;
        let place = apt.display();
        let configuration = format!(
            "Dir::State \"{place}/state\";\nDir::State::status \"/dev/null\";\nDir::Cache \"{place}/cache\";\n\
             Dir::Etc \"{place}/etc\";\nAPT::Architecture \"amd64\";\nAPT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\nAcquire::Retries \"1\";\nAcquire::http::Timeout \"20\";\n"
        );
        fs::write(apt.join("apt.conf"), configuration)?;
        bounded::must(self.apt("apt-get").arg("update"), UPDATE)?;
        let is_list = |path: &PathBuf| ["_Packages", "_Sources"].iter().any(|end| path.to_string_lossy().contains(end));
        if !files(&apt.join("state/lists")).iter().any(is_list) {
            // `apt-get update` calls it a success if no list could be fetched.
            return Err("no list of the archive's packages could be fetched: is there a network?".into());
        }
        self.updated = true;
        Ok(())
    }

    /// Downloads a kernel's packages and keeps of them what a boot needs.
    fn fetch(&self, release: &str) -> Result<(), Box<dyn Error>> {
        let parts = self.cache.join(format!("fetch-{}-{release}", std::process::id()));
        let done = self.fetch_into(&parts, release);
        fs::remove_dir_all(&parts)?;
        done
    }

    fn fetch_into(&self, parts: &Path, release: &str) -> Result<(), Box<dyn Error>> {
        fs::create_dir_all(parts)?;
        let main = format!("{}{release}", PACKAGE.0);
        let depends = bounded::must(self.apt("apt-cache").args(["depends", &main]), UPDATE)?;
        let needed: Vec<&str> = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).collect();
        let parts_of_it = PARTS.iter().map(|part| format!("{part}{release}"));
        let needed = parts_of_it.filter(|part| needed.contains(&part.as_str()));
        for package in std::iter::once(main.clone()).chain(needed) {
            bounded::must(self.apt("apt-get").args(["download", &package]).current_dir(parts), DOWNLOAD)?;
        }
        for package in files(parts).iter().filter(|path| path.extension().is_some_and(|end| end == "deb")) {
            unpack(package, parts)?;
        }
        let found = files(parts);
        let named = |names: [&str; 2]| {
            let is = |path: &&PathBuf| path.file_name().is_some_and(|name| names.iter().any(|wanted| name == *wanted));
            found.iter().find(is).ok_or_else(|| format!("the packages of {release} hold no {}", names[1]))
        };
        let folder = self.cache.join("kernels").join(release);
        let part = parts.join("kept");
        fs::create_dir_all(&part)?;
        modules::keep(&found, &part.join(KVM))?;
        if folder.is_dir() {
            // It was cached before its KVM was.
            return Ok(fs::rename(part.join(KVM), folder.join(KVM))?);
        }
        fs::copy(named([&format!("vmlinuz-{release}"), "vmlinuz"])?, part.join("vmlinuz"))?;
        fs::copy(named([&format!("config-{release}"), "config"])?, part.join("config"))?;
        if let Some(module) = modules::one(&found, "msr")? {
            fs::write(part.join("msr.ko"), module)?;
        }
        // A kernel is in the cache whole or not at all.
        fs::create_dir_all(self.cache.join("kernels"))?;
        fs::rename(part, folder)?;
        Ok(())
    }
}

/// Unpacks a package's image, configuration and the modules that the laboratory may need.
fn unpack(package: &Path, into: &Path) -> Result<(), Box<dyn Error>> {
    let mut files = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()?;
    let pipe = files.stdout.take().ok_or("dpkg-deb has no output")?;
    // A package that lacks one of these is no failure: another package of the same kernel has it.
    let _some_missing = Command::new("tar")
        .args(["-x", "--wildcards", "*/vmlinuz*", "*/config*"])
        .args(modules::PLACES)
        .current_dir(into)
        .stdin(pipe)
        .stderr(Stdio::null())
        .status()?;
    if files.wait()?.success() { Ok(()) } else { Err(format!("{}: cannot be unpacked", package.display()).into()) }
}

/// All files below a folder, in no order; what cannot be read is left out.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        // Links are not followed: those of a package lead outside.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// The releases of which a folder has something, behind a prefix.
fn releases_in(folder: &Path, prefix: &str) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let names = names.filter_map(|name| name.into_string().ok());
    let releases = names.filter_map(|name| name.strip_prefix(prefix).map(str::to_owned));
    releases.filter(|release| release.starts_with(|first: char| first.is_ascii_digit())).collect()
}

/// The newest release of a series; of all if the series is empty.
fn newest(series: &str, releases: impl IntoIterator<Item = String>) -> Option<String> {
    let of_series = |release: &String| {
        let rest = release.strip_prefix(series);
        rest.is_some_and(|rest| series.is_empty() || rest.is_empty() || rest.starts_with(['.', '-', '+']))
    };
    let versioned =
        |release: &String| release.split(['.', '-']).next().is_some_and(|major| major.parse::<u32>().is_ok());
    let numbers = |release: &String| {
        let parts = release.split(|character: char| !character.is_ascii_digit());
        parts.filter_map(|number| number.parse::<u64>().ok()).collect::<Vec<_>>()
    };
    // The package of a whole series (`6.12-cloud-amd64`) names no release: it has two numbers before the name.
    let whole = |release: &String| numbers(release).len() > 3;
    releases
        .into_iter()
        .filter(|release| of_series(release) && versioned(release) && whole(release))
        .max_by_key(numbers)
}

/// The options of a configuration on which CPU features hang.
fn options(config: &str) -> BTreeMap<String, String> {
    cpusieve_probe::linux::about_cpus(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_found_by_number() {
        let all = || {
            ["6.1.0-9-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.115+deb12-cloud-amd64", "6.12-cloud-amd64"]
                .map(str::to_owned)
        };
        assert_eq!(newest("6.1", all()).as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest("6.12", all()).as_deref(), Some("6.12.115+deb12-cloud-amd64"));
        assert_eq!(newest("6.1.0-9-cloud-amd64", all()).as_deref(), Some("6.1.0-9-cloud-amd64"));
        assert_eq!(newest("", all()).as_deref(), Some("6.12.115+deb12-cloud-amd64"));
        assert_eq!(newest("6", all()).as_deref(), Some("6.12.115+deb12-cloud-amd64"));
        assert_eq!(newest("5.10", all()), None);
    }
}
