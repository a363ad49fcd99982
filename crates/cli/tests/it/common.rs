//! What the tests of the program share.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process, thread};

use serde_json::Value;

/// The program.
pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cpusieve"))
}

/// The program with these arguments, its three streams being ours.
pub(crate) fn start(arguments: &[&str]) -> Child {
    let mut command = program();
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs the program with `input` on its standard input.
pub(crate) fn run(arguments: &[&str], input: impl AsRef<[u8]>) -> Output {
    let mut child = start(arguments);
    let (mut pipe, bytes) = (child.stdin.take().unwrap(), input.as_ref().to_vec());
    // Beside it, for what is longer than a pipe holds. A program that refuses its arguments does not read.
    let writer = thread::spawn(move || drop(pipe.write_all(&bytes)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// What was printed.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What was printed to standard error.
pub(crate) fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What was printed, after ending with `status`.
pub(crate) fn text_of(output: &Output, status: i32) -> String {
    assert_eq!(output.status.code(), Some(status), "{}\n{}", errors(output), text(output));
    text(output)
}

/// The JSON that was printed, after ending with `status`.
pub(crate) fn json_of(output: &Output, status: i32) -> Value {
    serde_json::from_str(&text_of(output, status)).unwrap()
}

/// The JSON that was printed, however the program ended.
pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", errors(output)))
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// A path below `corpus/`, as an argument.
pub(crate) fn corpus(file: &str) -> String {
    root().join("corpus").join(file).to_str().unwrap().to_owned()
}

/// A file below `corpus/`, unpacked if its name says that it is packed.
pub(crate) fn read(file: &str) -> Vec<u8> {
    let bytes = fs::read(corpus(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    if !file.ends_with(".gz") {
        return bytes;
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&*bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// The record of a real host, one of those that the QEMU oracle was asked about.
pub(crate) fn host(name: &str) -> Vec<u8> {
    read(&format!("qemu-oracle/hosts/{name}.json.gz"))
}

/// A folder that lives as long as the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("cpusieve-{}-{number}-{name}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Its own path.
    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// The path of something in it.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The path of something in it, as an argument.
    pub(crate) fn at(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and returns its path.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
