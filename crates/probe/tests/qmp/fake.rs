//! A program that stands for QEMU.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use flate2::read::GzDecoder;

/// Says what stands in the file beside it: `! ` on stderr, `< ` on stdout; after `> ` it must be asked exactly that.
const REPLAY: &str = r#"#!/bin/sh
exec 3<"$0.said"
while IFS= read -r line <&3; do
    text=${line#??}
    case $line in
        '! '*) printf '%s\n' "$text" >&2 ;;
        '< '*) printf '%s\r\n' "$text" ;;
        '> '*)
            IFS= read -r asked || exit 8
            if [ "$asked" != "$text" ]; then
                printf 'asked %s instead of %s\n' "$asked" "$text" >&2
                exit 9
            fi
            ;;
    esac
done
"#;

/// A folder with a program in it; both are removed when this is dropped.
pub(crate) struct Fake(PathBuf);

impl Fake {
    /// A shell script.
    pub(crate) fn script(script: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("cpusieve-qmp-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let fake = Self(folder);
        // Another process writes it: a file that is open for writing cannot be run, and a program that another test
        // starts at this moment would inherit it open.
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "cat >\"$1\" && chmod 755 \"$1\"", "sh"]).arg(fake.program()).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
        fake
    }

    /// A QEMU that says what was recorded.
    pub(crate) fn replay(said: &str) -> Self {
        let fake = Self::script(REPLAY);
        std::fs::write(fake.0.join("qemu.said"), said).unwrap();
        fake
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.0.join("qemu")
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The text of a recorded exchange: `7.2-vcpu`.
pub(crate) fn recording(name: &str) -> String {
    gunzipped(&Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/qmp/{name}.gz")))
}

pub(crate) fn gunzipped(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}
