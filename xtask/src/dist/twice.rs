//! Whether whoever builds gets the same bytes: the last commit built again, from a clone, by the same command but in
//! surroundings that differ in all that a build must not see.

use std::error::Error;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cargo_home;
use crate::root;

/// What the second build finds around it, beside other folders and another umask.
const SURROUNDINGS: [(&str, &str); 6] = [
    ("TZ", "Pacific/Kiritimati"),
    ("LC_ALL", "C.UTF-8"),
    ("LANG", "tr_TR.UTF-8"),
    ("USER", "somebody"),
    ("LOGNAME", "somebody"),
    ("HOSTNAME", "elsewhere"),
];

/// Refuses a tree with changes that are not committed, for no clone would have them.
pub(super) fn committed() -> Result<(), Box<dyn Error>> {
    let told = Command::new("git").current_dir(root()).args(["status", "--porcelain"]).output()?;
    let changed = String::from_utf8_lossy(&told.stdout).into_owned();
    if told.status.success() && changed.is_empty() {
        return Ok(());
    }
    Err(format!("--twice builds a clone of the last commit, which lacks\n{changed}").into())
}

/// Builds again elsewhere, and compares what came out, byte by byte, with this program and the files of `outputs`.
pub(super) fn prove(target: &str, program: &Path, outputs: &Path) -> Result<String, Box<dyn Error>> {
    let place = std::env::temp_dir().join(format!("cpusieve-dist-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let told = again(target, program, outputs, &place);
    fs::remove_dir_all(&place)?;
    told
}

fn again(target: &str, program: &Path, outputs: &Path, place: &Path) -> Result<String, Box<dyn Error>> {
    let clone = place.join("another/place/for/the/sources");
    let words = ["git", "clone", "--quiet", "--no-local"].map(OsStr::new);
    succeed(elsewhere(place, &words).arg(root()).arg(&clone))?;
    let words = ["cargo", "run", "--quiet", "--locked", "--package", "xtask", "--", "dist", "--target", target];
    let mut build = elsewhere(&clone, &words.map(OsStr::new));
    build.env("CARGO_HOME", home(place)?).env("CARGO_TARGET_DIR", place.join("objects"));
    succeed(&mut build)?;

    let folder = clone.join("target/dist");
    let mut pairs = vec![(program.to_owned(), folder.join(target).join("release/cpusieve"))];
    for file in fs::read_dir(outputs)? {
        let file = file?;
        pairs.push((file.path(), folder.join("out").join(file.file_name())));
    }
    for (first, second) in &pairs {
        if let Some(offset) = difference(&fs::read(first)?, &fs::read(second)?) {
            return Err(format!("built again elsewhere, {} differs from byte {offset} on", first.display()).into());
        }
    }
    Ok(format!("built again from a clone elsewhere: the same {} files, byte by byte", pairs.len()))
}

/// A command in a folder, in the other surroundings; what cargo and rustup told this process of its own tree is not
/// handed on.
fn elsewhere(folder: &Path, words: &[&OsStr]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 027; exec \"$@\"", "sh"]).args(words).current_dir(folder);
    let told = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO"));
    for (name, _) in told {
        command.env_remove(name);
    }
    command.env_remove("RUSTUP_TOOLCHAIN").envs(SURROUNDINGS).stdout(Stdio::null());
    command
}

fn succeed(command: &mut Command) -> Result<(), Box<dyn Error>> {
    if command.status()?.success() { Ok(()) } else { Err("the second build failed".into()) }
}

/// Another home for cargo with what the real one has, so that nothing is downloaded again.
fn home(place: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let home = place.join("home-of-cargo");
    fs::create_dir_all(&home)?;
    for entry in fs::read_dir(cargo_home()?)? {
        let entry = entry?;
        symlink(entry.path(), home.join(entry.file_name()))?;
    }
    Ok(home)
}

/// The first offset at which two files differ, the end of the shorter one included.
fn difference(first: &[u8], second: &[u8]) -> Option<usize> {
    let common = first.iter().zip(second).take_while(|(one, other)| one == other).count();
    (common < first.len().max(second.len())).then_some(common)
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn files_are_the_same_to_their_ends() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"abd"), Some(2));
        assert_eq!(difference(b"abc", b"ab"), Some(2));
        assert_eq!(difference(b"", b"a"), Some(0));
    }
}
