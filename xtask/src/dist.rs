//! `cargo xtask dist`: what users install. One static binary with its man pages and completions, as a tarball and as a
//! Debian package, with sums; no path and no time of the machine is in them. Whoever builds a commit with the same
//! compiler gets the same bytes, which `--twice` proves.

mod deb;
mod old_kernel;
mod tarball;
mod twice;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::{Outcome, cargo, root};
use tarball::Entry;

/// musl: the program then contains its C library, and that one calls nothing by way of files of the machine.
const TARGET: &str = "x86_64-unknown-linux-musl";

type Files = BTreeMap<String, Entry>;

pub(crate) fn run(arguments: &[String]) -> Outcome {
    let mut options = arguments.iter();
    let mut target = TARGET.to_owned();
    let mut twice = false;
    while let Some(option) = options.next() {
        match option.as_str() {
            "--twice" => twice = true,
            "--target" => options.next().ok_or("--target: expected TRIPLE")?.clone_into(&mut target),
            other => return Err(format!("`{other}`: expected --target TRIPLE or --twice").into()),
        }
    }
    if twice {
        twice::committed()?;
    }
    let folder = root().join("target/dist");
    let program = build(&target, &folder)?;
    is_static(&program)?;
    let proved = old_kernel::prove(&program)?;
    println!("{proved}");

    let files = files(&program, &folder)?;
    let time = time()?;
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("cpusieve-{version}-{}", target.replace("-unknown", ""));
    let outputs = folder.join("out");
    // What an earlier build left is not part of this one.
    if outputs.exists() {
        fs::remove_dir_all(&outputs)?;
    }
    fs::create_dir_all(&outputs)?;
    let inside: Files = files.iter().map(|(path, entry)| (format!("{name}/{path}"), entry.clone())).collect();
    fs::write(outputs.join(format!("{name}.tar.gz")), tarball::gzipped(&inside, time)?)?;
    fs::write(outputs.join(format!("cpusieve_{version}_amd64.deb")), deb::package(&files, version, time)?)?;
    sums(&outputs)?;
    if twice {
        println!("{}", twice::prove(&target, &program, &outputs)?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Where cargo keeps the sources of dependencies, whose paths must not reach the program.
fn cargo_home() -> Result<PathBuf, Box<dyn Error>> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    Ok(home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).ok_or("no home folder")?)
}

/// Builds the program for a target, without any path of this machine in it.
fn build(target: &str, folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let printed = |arguments: &[&str]| -> Result<String, Box<dyn Error>> {
        Ok(String::from_utf8(Command::new("rustc").current_dir(root()).args(arguments).output()?.stdout)?
            .trim()
            .to_owned())
    };
    let sysroot = printed(&["--print", "sysroot"])?;
    if !Path::new(&sysroot).join("lib/rustlib").join(target).join("lib").is_dir() {
        return Err(format!("Rust's standard library for {target} is missing: rustup target add {target}").into());
    }
    let home = cargo_home()?;
    let root = fs::canonicalize(root())?;
    // Later mappings win, and the repository may stand below the home folder.
    let flags = [
        "-Ctarget-feature=+crt-static".to_owned(),
        "-Crelocation-model=static".to_owned(),
        format!("--remap-path-prefix={}=/cargo", home.display()),
        format!("--remap-path-prefix={}=/cpusieve", root.display()),
    ];
    let built = cargo()
        .args(["build", "--release", "--locked", "--package", "cpusieve", "--target", target, "--target-dir"])
        .arg(folder)
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .status()?;
    if built.success() { Ok(folder.join(target).join("release/cpusieve")) } else { Err("the build failed".into()) }
}

/// Makes sure that the program asks for no dynamic loader: no program header of type `PT_INTERP`.
fn is_static(program: &Path) -> Result<(), Box<dyn Error>> {
    const PT_INTERP: u32 = 3;
    let bytes = fs::read(program)?;
    let field = |at: usize, length: usize| -> Option<u64> {
        let bytes = bytes.get(at..at + length)?;
        Some(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    };
    // Elf64_Ehdr: e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    let headers = field(32, 8).zip(field(54, 2)).zip(field(56, 2)).ok_or("the program is no ELF file")?;
    let ((offset, size), count) = headers;
    let kinds = (0..count).filter_map(|index| field(usize::try_from(offset + index * size).ok()?, 4));
    let mut kinds = kinds.peekable();
    if kinds.peek().is_none() || kinds.any(|kind| kind == u64::from(PT_INTERP)) {
        return Err(format!("{} is not static", program.display()).into());
    }
    println!("{}: static, {} bytes", program.display(), bytes.len());
    Ok(())
}

/// What is installed, by its path below `/usr`.
fn files(program: &Path, folder: &Path) -> Result<Files, Box<dyn Error>> {
    let mut files = Files::new();
    let mut put = |path: String, bytes: Vec<u8>, mode: u32| files.insert(path, Entry { bytes, mode });
    put("bin/cpusieve".to_owned(), fs::read(program)?, 0o755);
    let made = folder.join("manual");
    if made.exists() {
        fs::remove_dir_all(&made)?;
    }
    fs::create_dir_all(&made)?;
    for what in ["bash", "zsh", "fish", "man"] {
        if !Command::new(program).args(["manual", what, "--to"]).arg(&made).status()?.success() {
            return Err(format!("the program could not make its {what} files").into());
        }
    }
    for file in fs::read_dir(&made)? {
        let file = file?.path();
        let name = file.file_name().and_then(|name| name.to_str()).ok_or("a file without a name")?.to_owned();
        let bytes = fs::read(&file)?;
        match name.as_str() {
            "cpusieve.bash" => put("share/bash-completion/completions/cpusieve".to_owned(), bytes, 0o644),
            "_cpusieve" => put(format!("share/zsh/vendor-completions/{name}"), bytes, 0o644),
            "cpusieve.fish" => put(format!("share/fish/vendor_completions.d/{name}"), bytes, 0o644),
            _ => put(format!("share/man/man1/{name}.gz"), tarball::gzip(&bytes)?, 0o644),
        };
    }
    for name in ["README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        put(format!("share/doc/cpusieve/{name}"), fs::read(root().join(name))?, 0o644);
    }
    Ok(files)
}

/// The time that all files bear, in seconds since 1970: `SOURCE_DATE_EPOCH`, else that of the commit.
fn time() -> Result<u64, Box<dyn Error>> {
    if let Ok(time) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(time.parse()?);
    }
    let told = Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]).output()?;
    let told = String::from_utf8(told.stdout)?;
    Ok(told.trim().parse().map_err(|_| "no commit tells the time: set SOURCE_DATE_EPOCH")?)
}

/// Writes `SHA256SUMS` beside the outputs, and prints it.
fn sums(outputs: &Path) -> Result<(), Box<dyn Error>> {
    let mut names: Vec<_> = fs::read_dir(outputs)?.flatten().map(|file| file.file_name()).collect();
    names.sort();
    let summed = Command::new("sha256sum").current_dir(outputs).args(&names).output()?;
    if !summed.status.success() {
        return Err("sha256sum failed".into());
    }
    fs::write(outputs.join("SHA256SUMS"), &summed.stdout)?;
    println!("{}:\n{}", outputs.display(), String::from_utf8_lossy(&summed.stdout).trim_end());
    Ok(())
}
