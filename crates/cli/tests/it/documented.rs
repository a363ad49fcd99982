//! Every command that the documentation shows is run: the README's, the book's, and the examples of each `--help`.
//!
//! In the book, what stands under a command is what it prints, up to a line `...`; a block that is marked `machine` shows
//! what depends on the machine, so only its status is looked at. `CPUSIEVE_BLESS=1` writes what is printed into the book.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use crate::common::{Folder, root};
use crate::source_tree;

/// A folder with the files that examples name, and the corpus.
struct Sandbox(Folder);

impl Sandbox {
    fn new(name: &str) -> Self {
        let sandbox = Self(Folder::new(name));
        fs::create_dir(sandbox.0.at("hosts")).unwrap();
        let corpus = root().join("corpus");
        symlink(&corpus, sandbox.0.at("corpus")).unwrap();
        let copy = |from: &str, to: &str| fs::copy(corpus.join(from), sandbox.0.at(to)).unwrap();
        for to in ["host.json", "old.json", "hosts/one.json", "proof.json"] {
            copy("guests-kvm/k6.12-max.json", to);
        }
        copy("guests-kvm/k6.1-max.json", "new.json");
        copy("guests-kvm/k7.3-EPYC-Milan.json", "hosts/two.json");
        copy("guests-kvm/k6.1-max.json", "guest.json");
        copy("examples/hybrid-host.flags", "host.cpuinfo");
        copy("examples/hybrid-guest.flags", "guest.cpuinfo");
        for folder in ["2025-06", "2025-07"] {
            fs::create_dir(sandbox.0.at(folder)).unwrap();
            copy("guests-kvm/k6.1-max.json", &format!("{folder}/one.json"));
        }
        copy("examples/hybrid-host.flags", "host");
        copy("examples/hybrid-guest.flags", "guest");
        let log = "qemu-system-x86_64: warning: host doesn't support requested feature: CPUID.07H:EBX.hle [bit 4]\n";
        sandbox.0.file("qemu.log", log);
        sandbox.0.file("baseline.json", r#"{"format":1,"features":["aes"]}"#);
        source_tree::write(&sandbox.0.join("linux"), "6.12", "-mine");
        sandbox.0.file("guest.xml", "<cpu match='exact'><model>Haswell</model></cpu>");
        sandbox
    }

    /// Runs a line of shell here, with the program in the path, for a bounded time.
    fn run(&self, line: &str) -> Output {
        let program = Path::new(env!("CARGO_BIN_EXE_cpusieve"));
        let paths = env::var_os("PATH").unwrap_or_default();
        let paths = [program.parent().unwrap().to_owned()].into_iter().chain(env::split_paths(&paths));
        // Into files: a pipe that nobody reads would stop the program.
        let (stdout, stderr) = (self.0.at(".stdout"), self.0.at(".stderr"));
        let mut child = Command::new("timeout")
            .args(["60", "sh", "-c", line])
            .current_dir(self.0.path())
            .env("PATH", env::join_paths(paths).unwrap())
            // What is imported here is nobody else's.
            .env("CPUSIEVE_CONFIG", "config")
            .stdin(Stdio::null())
            .stdout(fs::File::create(&stdout).unwrap())
            .stderr(fs::File::create(&stderr).unwrap())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < Duration::from_secs(90), "{line}: does not end"),
            }
            thread::sleep(Duration::from_millis(2));
        };
        Output { status, stdout: fs::read(stdout).unwrap(), stderr: fs::read(stderr).unwrap() }
    }
}

/// How many lines of an output are shown where a page says `...` alone.
const BEGINNING: usize = 16;

/// A command in a text, and the lines that stand under it.
struct Shown {
    machine: bool,
    command: String,
    /// The lines of the text between which its output stands.
    from: usize,
    to: usize,
}

/// The commands of a Markdown text's `console` blocks.
fn commands(text: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut block: Option<bool> = None;
    for (number, line) in text.lines().enumerate() {
        match (block, line.strip_prefix("```")) {
            (None, Some(info)) if info.starts_with("console") => block = Some(info.contains("machine")),
            (Some(_), Some(_)) => block = None,
            (Some(machine), None) => match line.strip_prefix("$ ") {
                Some(command) => {
                    found.push(Shown { machine, command: command.to_owned(), from: number + 1, to: number + 1 });
                }
                None => found.last_mut().unwrap().to = number + 1,
            },
            _ => {}
        }
    }
    found
}

/// Whether a command only runs where more is at hand than this program.
fn needs_more(command: &str) -> bool {
    ["ssh ", "cargo ", "virsh ", "git ", "journalctl ", "jq ", "| duckdb", "hdfs:", "/etc/libvirt"]
        .iter()
        .any(|word| command.contains(word))
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

#[test]
fn the_book_shows_what_is_printed() {
    let sandbox = Sandbox::new("book");
    let pages = root().join("docs/book/src");
    let folders = [pages.clone(), pages.join("stages"), pages.join("questions")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()));
    let mut ran = 0;
    for page in files.filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(&page).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // What one page imports is not there on the next.
        let _ = fs::remove_dir_all(sandbox.0.join("config"));
        let run = commands(&text).into_iter().filter(|shown| !needs_more(&shown.command));
        let outputs: Vec<(Shown, Output)> = run
            .map(|shown| {
                let output = sandbox.run(&shown.command);
                (shown, output)
            })
            .collect();
        // From the last to the first, so that what is replaced moves nothing that comes later.
        for (shown, output) in outputs.into_iter().rev() {
            ran += 1;
            let status = output.status.code();
            assert!(matches!(status, Some(0 | 1 | 3)), "{}: {status:?}\n{}", shown.command, told(&output));
            if shown.machine {
                continue;
            }
            let printed = String::from_utf8(output.stdout).unwrap();
            let expected: Vec<&str> = lines[shown.from..shown.to].iter().map(String::as_str).collect();
            let whole = expected.last() != Some(&"...");
            let mut printed: Vec<&str> = printed.lines().collect();
            if !whole {
                // A page that is new shows the beginning.
                let shown = if expected.len() == 1 { BEGINNING } else { expected.len() - 1 };
                printed.truncate(shown);
                printed.push("...");
            }
            if printed == expected {
                continue;
            }
            assert!(
                env::var_os("CPUSIEVE_BLESS").is_some(),
                "{}: {}\n{}",
                page.display(),
                shown.command,
                printed.join("\n")
            );
            let printed: Vec<String> = printed.into_iter().map(str::to_owned).collect();
            lines.splice(shown.from..shown.to, printed);
        }
        if env::var_os("CPUSIEVE_BLESS").is_some() {
            fs::write(&page, lines.join("\n") + "\n").unwrap();
        }
    }
    println!("{ran} commands of the book were run");
    assert!(ran > 20);
}

#[test]
fn the_readme_s_commands_run() {
    let sandbox = Sandbox::new("readme");
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let mut ran = 0;
    for shown in commands(&text).into_iter().filter(|shown| !needs_more(&shown.command)) {
        let output = sandbox.run(&shown.command);
        assert!(matches!(output.status.code(), Some(0 | 1 | 3)), "{}: {}", shown.command, told(&output));
        ran += 1;
    }
    assert!(ran > 0);
}

/// The verbs, and those of `fleet` and the like, as `--help` lists them.
fn verbs(sandbox: &Sandbox, of: &str) -> Vec<String> {
    let help = String::from_utf8(sandbox.run(&format!("cpusieve {of} --help")).stdout).unwrap();
    let listed = help.lines().skip_while(|line| !matches!(*line, "Verbs:" | "Commands:")).skip(1);
    let names = listed.take_while(|line| !line.is_empty()).filter_map(|line| {
        let name = line.strip_prefix("  ")?.split_whitespace().next()?;
        (line.as_bytes().get(2) != Some(&b' ') && name != "help").then(|| format!("{of} {name}").trim().to_owned())
    });
    names.collect()
}

#[test]
fn the_examples_of_every_help_run() {
    let sandbox = Sandbox::new("help");
    let mut all = verbs(&sandbox, "");
    let inner: Vec<String> = all.iter().flat_map(|verb| verbs(&sandbox, verb)).collect();
    all.extend(inner);
    all.push(String::new());
    assert!(all.len() > 12, "{all:?}");
    // Examples read what others write.
    let made = sandbox.run(
        "cpusieve fleet pack -o fleet.arrow --parquet fleet.parquet hosts/ --qemu 10.0 && \
         zcat corpus/guests-kvm/trace/k6.12-max-trace-supported.txt.gz > trace.txt",
    );
    assert!(made.status.success(), "{}", told(&made));
    let (mut ran, mut wrong) = (0, Vec::new());
    for verb in &all {
        let help = String::from_utf8(sandbox.run(&format!("cpusieve {verb} --help")).stdout).unwrap();
        let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1).take_while(|line| !line.is_empty());
        for example in examples {
            // What follows two blanks explains.
            let command = example.trim().split("  ").next().unwrap();
            if !command.contains("cpusieve") || needs_more(command) || endless(command) {
                continue;
            }
            let output = sandbox.run(command);
            let status = output.status.code();
            // 2 is CRITICAL to a monitoring plugin.
            let fine = matches!(status, Some(0 | 1 | 3)) || command.contains("check") && status == Some(2);
            if !fine || told(&output).contains("panicked") {
                wrong.push(format!("{command}: {status:?}\n{}", told(&output)));
            }
            ran += 1;
        }
    }
    println!("{ran} examples of {} helps were run", all.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(ran > 30);
}

/// Whether a command runs until it is interrupted, takes minutes, or writes where this test may not.
fn endless(command: &str) -> bool {
    let endless = matches!(command, "cpusieve trace" | "cpusieve trace host" | "cpusieve verify" | "cpusieve price");
    endless
        || ["/etc/", "/usr/", "/var/", "~/", "man -l", "trace guests", "--guest", "--keep", "price "]
            .iter()
            .any(|word| command.contains(word))
}
