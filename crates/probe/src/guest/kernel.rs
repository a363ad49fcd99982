//! A kernel image that a guest can boot, and what lies beside it: its configuration, its `msr` module.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::Refusal;
use crate::files::{Root, bounded};
use crate::linux::about_cpus;

/// The longest module that is read, in bytes; `msr.ko` has about 20 KiB.
const MODULE_LIMIT: u64 = 1 << 20;

/// The longest configuration that is read, in bytes.
const CONFIG_LIMIT: u64 = 4 << 20;

/// A kernel that can be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The image.
    pub image: PathBuf,
    /// The release that the image says it is.
    pub release: Option<String>,
    /// The options of its configuration that decide over CPU features, if a configuration lies beside it.
    pub config: Option<BTreeMap<String, String>>,
    /// The `msr` module, if it lies beside it or among the installed modules; without, or built in, a guest may not be
    /// able to read its MSRs.
    pub msr: Option<Vec<u8>>,
}

/// The kernel to boot: the one that is named, else the running one, else the newest in `/boot`.
///
/// # Errors
///
/// If the image that is named is none, or none is found that can be read; the refusal names what was looked for.
pub fn find(named: Option<&Path>) -> Result<Kernel, Refusal> {
    let running = rustix::system::uname().release().to_string_lossy().into_owned();
    find_below(&Root::machine(), named, &running)
}

fn find_below(root: &Root, named: Option<&Path>, running: &str) -> Result<Kernel, Refusal> {
    if let Some(named) = named {
        return read(root, named);
    }
    let places = [format!("boot/vmlinuz-{running}"), format!("lib/modules/{running}/vmlinuz")];
    let mut first = None;
    for place in places {
        match read(root, &root.path(&place)) {
            Ok(kernel) => return Ok(kernel),
            Err(refusal) => first = first.or(Some(refusal)),
        }
    }
    let mut installed = root.names("boot").unwrap_or_default();
    installed.retain(|name| name.starts_with("vmlinuz-"));
    installed.sort_by_key(|name| std::cmp::Reverse(numbers(name)));
    let found = installed.iter().find_map(|name| read(root, &root.path(&format!("boot/{name}"))).ok());
    match (found, first) {
        (Some(kernel), _) => Ok(kernel),
        (None, Some(refusal)) => Err(refusal),
        (None, None) => Err(Refusal::file(&root.path("boot"), io::ErrorKind::NotFound.into())),
    }
}

/// The numbers in a name, by which `6.12` is newer than `6.9`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|part| part.parse().ok()).take(8).collect()
}

fn read(root: &Root, image: &Path) -> Result<Kernel, Refusal> {
    let file = File::open(image).map_err(|source| Refusal::file(image, source))?;
    let release = release(&file, image)?;
    let text = |path: PathBuf| {
        let bytes = bounded(File::open(&path).ok()?, &path, CONFIG_LIMIT).ok()?;
        Some(about_cpus(&String::from_utf8_lossy(&bytes)))
    };
    let config = beside(image, "config").and_then(text);
    let own_module = image.with_file_name("msr.ko");
    // A release with a slash would lead elsewhere.
    let plain = release.as_deref().filter(|release| !release.contains('/'));
    let installed = plain.map(|release| root.path(&format!("lib/modules/{release}/kernel/arch/x86/kernel/msr.ko")));
    let module = |path: PathBuf| bounded(File::open(&path).ok()?, &path, MODULE_LIMIT).ok();
    let msr = module(own_module).or_else(|| installed.and_then(module));
    Ok(Kernel { image: image.to_owned(), release, config, msr })
}

/// `config-6.1` for `vmlinuz-6.1`, `config` for `vmlinuz`.
fn beside(image: &Path, name: &str) -> Option<PathBuf> {
    let rest = image.file_name()?.to_str()?.strip_prefix("vmlinuz")?;
    Some(image.with_file_name(format!("{name}{rest}")))
}

/// The release in the header of an image (Linux `Documentation/arch/x86/boot.rst`): "HdrS" at 202H, and at 20EH the place
/// of the version's text, counted from 200H.
fn release(file: &File, path: &Path) -> Result<Option<String>, Refusal> {
    let mut header = [0; 16];
    file.read_exact_at(&mut header, 0x200).map_err(|source| Refusal::file(path, source))?;
    let (magic, pointer) = (header.get(2..6), header.get(14..16));
    if magic != Some(b"HdrS") {
        return Err(Refusal::content(path, "kernel image (bzImage)", &String::from_utf8_lossy(&header)));
    }
    let at = pointer.and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes);
    let mut text = [0; 128];
    if at == 0 || file.read_exact_at(&mut text, u64::from(at) + 0x200).is_err() {
        return Ok(None);
    }
    let end = text.iter().position(|&byte| byte == 0 || byte == b' ').unwrap_or(text.len());
    let release = String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned();
    Ok((!release.is_empty()).then_some(release))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn image(release: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&0x400_u16.to_le_bytes());
        bytes[0x600..0x600 + release.len()].copy_from_slice(release.as_bytes());
        bytes
    }

    #[test]
    fn the_running_kernel_comes_before_the_newest_one() {
        let folder = Folder::new("kernels");
        let root = folder.root();
        let missing = find_below(&root, None, "6.1.0-1").unwrap_err();
        assert!(missing.to_string().contains("boot/vmlinuz-6.1.0-1"), "{missing}");
        folder.write("boot/vmlinuz-6.9.0-1", &image("6.9.0-1 (builder) #1"));
        folder.write("boot/vmlinuz-6.12.0-1", &image("6.12.0-1 (builder) #1"));
        folder.write("boot/config-6.12.0-1", b"CONFIG_X86_5LEVEL=y\nCONFIG_USB=y\n");
        folder.write("lib/modules/6.12.0-1/kernel/arch/x86/kernel/msr.ko", b"module");
        let newest = find_below(&root, None, "6.1.0-1").unwrap();
        assert_eq!(newest.release.as_deref(), Some("6.12.0-1"));
        assert_eq!((newest.config.unwrap().len(), newest.msr.as_deref()), (1, Some(b"module".as_slice())));
        folder.write("boot/vmlinuz-6.1.0-1", &image("6.1.0-1 (builder) #1"));
        assert_eq!(find_below(&root, None, "6.1.0-1").unwrap().release.as_deref(), Some("6.1.0-1"));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let folder = Folder::new("no-kernel");
        folder.write("vmlinuz", &[0; 0x400]);
        let refusal = find_below(&folder.root(), Some(&folder.path("vmlinuz")), "").unwrap_err();
        assert!(refusal.to_string().contains("kernel image"), "{refusal}");
        folder.write("short", b"");
        assert!(find_below(&folder.root(), Some(&folder.path("short")), "").is_err());
    }
}
