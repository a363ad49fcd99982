//! Kernel modules of a package: found, decompressed, and put into the order in which they can be loaded.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the modules lie of which the laboratory may need some, as patterns for `tar`.
pub(super) const PLACES: [&str; 4] = [
    "*/arch/x86/kernel/msr.ko*",
    "*/arch/x86/kvm/kvm*.ko*",
    "*/virt/lib/irqbypass.ko*",
    "*/drivers/crypto/ccp/ccp.ko*",
];

/// KVM for AMD's CPUs, the only ones whose virtualisation QEMU emulates.
const KVM_AMD: &str = "kvm-amd";

/// A module.
pub(super) struct Module {
    /// Its file's name without the end: `kvm-amd`.
    pub(super) name: String,
    /// The object, not compressed.
    pub(super) object: Vec<u8>,
}

/// The object of one module among files; `None` if it is not there.
pub(super) fn one(files: &[PathBuf], name: &str) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    let named =
        |end: &str| files.iter().find(|path| path.file_name().is_some_and(|file| *file == *format!("{name}{end}")));
    if let Some(plain) = named(".ko") {
        return Ok(Some(fs::read(plain)?));
    }
    let Some(packed) = named(".ko.xz") else { return Ok(None) };
    let output = Command::new("xz").arg("-dc").arg(packed).stdin(Stdio::null()).output()?;
    if output.status.success() { Ok(Some(output.stdout)) } else { Err(format!("xz: {}", packed.display()).into()) }
}

/// Writes KVM for AMD and all that it needs into a folder; nothing but the folder if the kernel has no such module.
pub(super) fn keep(files: &[PathBuf], folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    for (place, module) in closure(&|name| one(files, name))?.iter().enumerate() {
        fs::write(folder.join(format!("{place:02}-{}.ko", module.name)), &module.object)?;
    }
    Ok(())
}

/// What [`keep`] wrote, in its order.
pub(super) fn load(folder: &Path) -> Result<Vec<Module>, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = paths.iter().map(|path| {
        let file = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = file.split_once('-').map_or(&*file, |(_, name)| name).to_owned();
        Ok(Module { name, object: fs::read(path)? })
    });
    let modules: Vec<Module> = read.collect::<Result<_, std::io::Error>>()?;
    if modules.is_empty() { Err("this kernel has no module kvm-amd".into()) } else { Ok(modules) }
}

type Find<'a> = &'a dyn Fn(&str) -> Result<Option<Vec<u8>>, Box<dyn Error>>;

/// KVM for AMD behind everything that it needs. What is needed and not there is built in.
fn closure(find: Find<'_>) -> Result<Vec<Module>, Box<dyn Error>> {
    let mut ordered = Vec::new();
    add(KVM_AMD, find, &mut ordered)?;
    Ok(ordered)
}

fn add(name: &str, find: Find<'_>, ordered: &mut Vec<Module>) -> Result<(), Box<dyn Error>> {
    let plain = name.replace('_', "-");
    if ordered.iter().any(|module| module.name.replace('_', "-") == plain) {
        return Ok(());
    }
    let Some(object) = find(name)? else { return Ok(()) };
    for needed in needs(&object) {
        add(&needed, find, ordered)?;
    }
    ordered.push(Module { name: name.to_owned(), object });
    Ok(())
}

/// What a module says that it needs (`depends=` of its section `.modinfo`).
fn needs(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(found) = object.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let rest = object.get(found + KEY.len()..).unwrap_or_default();
    let value = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let find = |name: &str| -> Result<Option<Vec<u8>>, Box<dyn Error>> {
            let needs = match name {
                "kvm-amd" => "kvm,ccp",
                "kvm" => "irqbypass",
                "ccp" => "built-in-everywhere,irqbypass",
                "irqbypass" => "",
                _ => return Ok(None),
            };
            Ok(Some(format!("\u{7f}ELF\0license=GPL\0depends={needs}\0name={name}\0").into_bytes()))
        };
        let names: Vec<_> = closure(&find).unwrap().into_iter().map(|module| module.name).collect();
        assert_eq!(names, ["irqbypass", "kvm", "ccp", "kvm-amd"]);
        assert!(needs(b"no such section").is_empty());
    }
}
