//! `import` as its users meet it: a tree is read, used by name and by release, listed and forgotten.

use std::fs;
use std::process::Output;

use cpusieve_import::linux::{LinuxFacts, Shown};
use serde_json::Value;

use crate::common::{Folder, corpus, errors as error, program, text_of};
use crate::source_tree;

/// A folder of this test alone, with a configuration folder in it.
struct Home(Folder);

impl Home {
    fn new(name: &str) -> Self {
        Self(Folder::new(name))
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut program = program();
        program.args(arguments).current_dir(self.0.path());
        program.env_remove("CPUSIEVE_CONFIG").env("XDG_CONFIG_HOME", self.0.at("config")).output().unwrap()
    }

    fn text(&self, status: i32, arguments: &[&str]) -> String {
        text_of(&self.run(arguments), status)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(0, &[arguments, &["--json"]].concat())).unwrap()
    }

    /// Why a command is refused.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        error(&output)
    }
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
}

/// The only entry of a list of which something holds.
fn one(list: &Value, holds: impl Fn(&Value) -> bool) -> &Value {
    let mut found = list.as_array().unwrap().iter().filter(|entry| holds(entry));
    let first = found.next().unwrap_or_else(|| panic!("none in {list}"));
    assert!(found.next().is_none());
    first
}

#[test]
fn a_made_up_tree_says_what_its_facts_say() {
    let home = Home::new("facts");
    for label in ["6.12", "7.3"] {
        let (version, facts) = source_tree::facts(label);
        let folder = home.0.join(label);
        source_tree::write_facts(&folder, &version, "", &facts);
        let read = LinuxFacts::read(&|path: &str| fs::read_to_string(folder.join(path)).ok()).unwrap();
        assert_eq!(LinuxFacts { masks: facts.masks.clone(), ..read }, facts, "{label}");
    }
}

#[test]
fn a_new_flag_is_told_with_what_else_must_change() {
    let home = Home::new("new");
    source_tree::write(&home.0.join("linux"), "6.12", "-mine");
    let text = home.text(0, &["import", "linux", "linux", "--name", "mine"]);
    assert!(text.starts_with("mine: Linux 6.12.107-mine, from linux\n"), "{text}");
    assert!(text.contains("flags    + my_flag, 7.1.EAX[9] X86_FEATURE_MY_FLAG\n"), "{text}");
    assert!(text.contains("!! kvm    does not offer it") && text.contains("!! qemu   has no name for it"), "{text}");
    let found = home.json(&["import", "linux", "linux", "--name", "mine"]);
    assert_eq!((&found["name"], &found["nearest"]), (&"mine".into(), &"6.12".into()));
    assert_eq!(found["halves"], serde_json::json!(["linux"]));
    let new = one(&found["features"], |_| true);
    assert_eq!(new["macro"], source_tree::NEW);
    assert_eq!((&new["before"], &new["after"]["printed"]), (&Value::Null, &"my_flag".into()));
    let kvm = one(&found["needs"], |need| need["who"] == "kvm");
    assert_eq!((&kvm["feature"], &kvm["met"]), (&"my_flag".into(), &false.into()));
    // The features of every verb that names one.
    assert!(home.text(0, &["name", "my-flag"]).contains("printed as my_flag in mine"));
    assert!(home.text(0, &["why", "my_flag"]).contains(", mine "));
    let listed = home.json(&["import", "list"]);
    assert_eq!(one(&listed["trees"], |_| true)["version"], "6.12.107-mine");
    assert_eq!(home.text(0, &["import", "remove", "mine"]), "mine: forgotten\n");
    assert_eq!(home.text(0, &["import", "list"]), "No kernel tree was imported.\n");
    assert!(home.refused(&["name", "my-flag"]).contains("no system that cpusieve knows"));
}

/// A guest whose CPU has everything: all flags that the kernel knows are printed.
#[test]
fn predictions_use_a_tree_by_its_name_and_by_its_release() {
    let home = Home::new("predict");
    let (version, mut facts) = source_tree::facts("6.12");
    source_tree::write_facts(&home.0.join("same"), &version, "-same", &facts);
    let flag = facts.features.iter_mut().find(|flag| flag.macro_name == "AVX2").unwrap();
    flag.shown = Shown::Name("avx_two".to_owned());
    source_tree::write_facts(&home.0.join("other"), &version, "-other", &facts);
    for name in ["same", "other"] {
        home.text(0, &["import", "linux", name, "--name", name]);
    }
    let host = corpus("guests-kvm/k6.12-max.json");
    let predict = |kernel: &str| {
        home.json(&["predict", "--until", "guest", "--host-kernel", "6.12", "--guest-kernel", kernel, &host])
    };
    let (known, same, other) = (predict("6.12"), predict("same"), predict("other"));
    for line in ["flags", "hidden", "bugs", "vmx_flags"] {
        assert_eq!(same["guest"][line], known["guest"][line], "{line}");
    }
    assert_eq!(same["guest"]["kernel"], "same");
    let because = &one(&same["assumed"], |assumed| assumed["what"] == "guest kernel")["because"];
    assert_eq!(because, "Linux's tables were imported, not KVM's; everything else is that of 6.12");
    let renamed: Vec<&str> =
        words(&known["guest"]["flags"]).iter().map(|&word| if word == "avx2" { "avx_two" } else { word }).collect();
    assert_eq!(words(&other["guest"]["flags"]), renamed);
    assert!(renamed.contains(&"avx_two"));
    // The release of such a kernel is its name too, and a release that no tree has is still the nearest known one.
    let by_release = predict("6.12.107-other");
    assert_eq!(by_release["guest"], other["guest"]);
    assert_eq!(predict("6.12.106")["guest"]["kernel"], "6.12");
    // KVM of a tree of which only Linux was imported is that of the nearest one.
    let kvm =
        |kernel: &str| home.json(&["predict", "--until", "kvm", "--host-kernel", kernel, "--kvm", "predicted", &host]);
    assert_eq!(kvm("same")["kvm"], kvm("6.12")["kvm"]);
}

#[test]
fn a_record_of_such_a_kernel_is_compared_as_its_own() {
    let home = Home::new("diff");
    source_tree::write(&home.0.join("linux"), "6.12", "-mine");
    home.text(0, &["import", "linux", "linux", "--name", "mine"]);
    let record = |name: &str, release: &str, flags: &str| {
        let cpuinfo =
            format!("processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\nflags\t\t: {flags}\n");
        let record = serde_json::json!({"format": 1, "kind": "cpusieve-record",
            "linux": {"release": release, "cpuinfo": cpuinfo}});
        fs::write(home.0.join(name), record.to_string()).unwrap();
    };
    let common = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 \
                  syscall nx rdtscp lm constant_tsc cpuid pni vmx ssse3";
    record("host", "6.12.107-mine", &format!("{common} my_flag"));
    record("guest", "6.12.107", &format!("{} hypervisor", common));
    let found = home.json_of(1, &["diff", "host", "guest"]);
    let lost = one(&found["lost"], |item| item["flag"] == "my_flag");
    assert_eq!((&lost["at"], &lost["bit"]), (&"kvm".into(), &"CPUID.(EAX=07H,ECX=1):EAX[9]".into()), "{lost}");
    assert!(words(&found["unknown"]).is_empty());
}

impl Home {
    fn json_of(&self, status: i32, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(status, &[arguments, &["--json"]].concat())).unwrap()
    }
}

#[test]
fn what_is_no_tree_or_no_name_is_refused() {
    let home = Home::new("refused");
    fs::create_dir(home.0.join("empty")).unwrap();
    let import = |folder: &str, name: &str| home.refused(&["import", "linux", folder, "--name", name]);
    assert!(import("empty", "x").ends_with("empty: Makefile: not in this source tree\n"));
    assert!(import("nowhere", "x").contains("Makefile: not in this source tree"));
    source_tree::write(&home.0.join("linux"), "6.12", "-mine");
    assert!(import("linux", "6.1").contains("`6.1` is the name or version of a kernel tree that is compiled in"));
    assert!(import("linux", "../x").contains("cannot be a name"));
    fs::remove_file(home.0.join("linux/arch/x86/kernel/cpu/scattered.c")).unwrap();
    assert!(import("linux", "x").contains("arch/x86/kernel/cpu/scattered.c: not in this source tree"));
    let kvm = home.refused(&["import", "kvm", "linux", "--name", "x"]);
    assert!(kvm.contains("arch/x86/kvm/cpuid.c: no such file in this tree"), "{kvm}");
    assert!(home.refused(&["import", "remove", "x"]).contains("no imported tree is called `x`"));
    assert!(home.refused(&["import", "remove", "../../x"]).contains("no imported tree is called"));
    assert!(!home.0.join("config").exists(), "nothing was stored");
}

#[test]
fn a_damaged_tree_is_left_out_and_said() {
    let home = Home::new("damaged");
    source_tree::write(&home.0.join("linux"), "6.12", "-mine");
    home.text(0, &["import", "linux", "linux", "--name", "mine"]);
    let file = home.0.join("config/cpusieve/trees/mine.tree");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(" FPU ", " FPU and ")).unwrap();
    let output = home.run(&["name", "aes"]);
    assert_eq!(output.status.code(), Some(0));
    let said = error(&output);
    assert!(said.contains("the imported kernel tree mine is left out") && said.contains("mine.tree: line "), "{said}");
    assert_eq!(home.json_of(3, &["import", "list"])["trees"][0]["name"], "mine");
    // What replaces it is whole again.
    home.text(0, &["import", "linux", "linux", "--name", "mine"]);
    assert!(error(&home.run(&["name", "aes"])).is_empty());
    // `--config` looks elsewhere.
    let elsewhere = home.json(&["--config", "elsewhere", "import", "list"]);
    assert_eq!(elsewhere["trees"], serde_json::json!([]));
}
