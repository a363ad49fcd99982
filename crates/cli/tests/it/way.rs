//! `predict --until vcpu` and `--until guest` as their users meet them, against real QEMUs and real guests.

use serde_json::{Value, json};

use crate::common::{host, json_of, read, run};

/// The arguments that a row of the oracle was made with.
fn answer(arguments: &[&str], input: &[u8], status: i32) -> Value {
    json_of(&run(&[&["predict"], arguments, &["--json", "-"]].concat(), input), status)
}

fn arguments(row: &Value) -> Vec<&str> {
    let mut arguments = vec!["--until", "vcpu", "--machine", row["machine"].as_str().unwrap_or("q35")];
    for (option, key) in [("--qemu", "ver"), ("--cpu", "cpu"), ("--smp", "smp")] {
        if let Some(value) = row[key].as_str() {
            arguments.extend([option, value]);
        }
    }
    arguments
}

/// Some rows of each set of answers that real QEMUs gave: the whole table, and the lines that they printed.
#[test]
fn tables_and_warnings_are_qemus() {
    let mut compared = 0;
    for (set, every) in [("models-10.0", 9), ("opts-11.1", 13), ("opts-7.2", 17), ("mach-5.2", 23), ("smp-10.0", 7)] {
        let rows = String::from_utf8(read(&format!("qemu-oracle/results-{set}.jsonl.gz"))).unwrap();
        for row in rows.lines().step_by(every) {
            let row: Value = serde_json::from_str(row).unwrap();
            let failed = row["rc"] != 0;
            let host = host(row["host"].as_str().unwrap());
            let found = answer(&arguments(&row), &host, i32::from(failed));
            let vcpu = &found["vcpu"];
            let plain = |line: &Value| line.as_str().unwrap().trim_start_matches("warning: ").to_owned();
            let printed: Vec<String> = row["stderr"].as_array().unwrap().iter().map(plain).collect();
            let mut predicted: Vec<String> = vcpu["warnings"].as_array().unwrap().iter().map(plain).collect();
            predicted.extend(vcpu["error"].as_str().map(str::to_owned));
            // The machine that asked the oracle had two CPUs, which its hosts do not say.
            let of_machine = |line: &String| line.contains("SMP cpus requested") || line.contains("hotpluggable cpus");
            let printed: Vec<String> = printed.into_iter().filter(|line| !of_machine(line)).collect();
            assert_eq!(predicted, printed, "{row}");
            if failed {
                continue;
            }
            let entry = |entry: &Value| {
                let hex = |key: &str| u32::from_str_radix(&entry[key].as_str().unwrap()[2..], 16).unwrap();
                json!([hex("leaf"), entry["subleaf"], entry["flags"], hex("eax"), hex("ebx"), hex("ecx"), hex("edx")])
            };
            // VMware's leaf tells the frequency of the machine that asked, and raises the maximum of its range.
            let own = |entry: &Value| matches!(entry[0].as_u64(), Some(0x4000_0000 | 0x4000_0010));
            let table = vcpu["cpuid"].as_array().unwrap().iter().map(entry).filter(|entry| !own(entry));
            let seen = row["cpuid"].as_array().unwrap().iter().filter(|entry| !own(entry));
            assert!(table.eq(seen.cloned()), "{row}");
            compared += 1;
        }
    }
    assert!(compared > 45, "{compared} rows");
}

#[test]
fn a_guest_is_predicted_from_its_hosts_record() {
    let bytes = read("guests-kvm/k6.1-max.json");
    let capture: Value = serde_json::from_slice(&bytes).unwrap();
    let guest = capture["l2"].as_array().unwrap().iter().find(|guest| guest["cpu_arg"] == "Skylake-Server").unwrap();
    let release = guest["kernel_release"].as_str().unwrap();
    let version = guest["qemu_version"].as_str().unwrap();
    let route = ["--until", "guest", "--qemu", version, "--cpu", "Skylake-Server", "--guest-kernel", release];
    let cmdline = guest["proc_cmdline"].as_str().unwrap();
    let found = answer(&[&route[..], &["--guest-cmdline", cmdline]].concat(), &bytes, 0);
    let line = |name: &str| {
        let lines = guest["cpuinfo"].as_str().unwrap().lines();
        let line = lines.filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name).unwrap();
        line.1.split_whitespace().map(Value::from).collect::<Value>()
    };
    assert_eq!(found["guest"]["flags"], line("flags"));
    assert_eq!(found["guest"]["bugs"], line("bugs"));
    for stage in ["host", "kvm", "vcpu"] {
        assert!(found[stage].is_object(), "{stage}");
    }
    let at = |stage: &str| found["steps"].as_array().unwrap().iter().any(|step| step["at"] == stage);
    assert!(["host", "kvm", "qemu", "guest"].into_iter().all(at));
}

#[test]
fn a_wrong_cpu_is_answered_in_qemus_words() {
    let host = host("spr-6.18");
    let asked = ["--until", "guest", "--qemu", "5.2", "--cpu", "Icelake-Server,+amx-tile"];
    let found = answer(&asked, &host, 1);
    assert_eq!(found["vcpu"]["error"], "Property 'Icelake-Server-x86_64-cpu.amx-tile' not found");
    assert_eq!(found["vcpu"]["error_at"], 15);
    assert_eq!(found["vcpu"]["error_known_in"], json!(["7.2", "10.0", "11.1"]));
    assert!(found.get("guest").is_none());
    let output = run(&[&["predict"], &asked[..], &["-"]].concat(), &host);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("-cpu Icelake-Server,+amx-tile\n                      ^\n"), "{text}");
    assert!(text.contains("QEMU 7.2, 10.0, 11.1 knows it"), "{text}");
}

#[test]
fn firecracker_stands_where_qemu_stands() {
    let host = host("icx-6.1");
    let route = ["--until", "guest", "--vmm", "firecracker", "--template", "T2", "--host-kernel", "6.1"];
    let found = answer(&route, &host, 0);
    let has = |flag: &str| found["guest"]["flags"].as_array().unwrap().iter().any(|word| word == flag);
    // T2 takes AVX-512 from every host that it knows.
    assert!(has("avx2") && has("hypervisor") && !has("avx512f"));
    assert_eq!(found["vcpu"]["vmm"], "Firecracker");
    let taken =
        found["steps"].as_array().unwrap().iter().find(|step| step["feature"] == "avx512f" && step["at"] == "qemu");
    assert_eq!(taken.unwrap()["effect"], "dropped");
    let other = answer(&["--until", "vcpu", "--vmm", "firecracker", "--template", "T2A"], &host, 1);
    assert!(other["vcpu"]["error"].as_str().unwrap().contains("T2A"));
    let whole = answer(&["--until", "vcpu", "--vmm", "cloud-hypervisor", "--smp", "4"], &host, 0);
    assert_eq!(whole["vcpu"]["vmm"], "Cloud Hypervisor");
    for (refused, words) in [(["--cpu", "host"], "for QEMU"), (["--smp", "four"], "number of vCPUs")] {
        let output =
            run(&[&["predict", "--until", "vcpu", "--vmm", "firecracker"], &refused[..], &["-"]].concat(), &host);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(words));
    }
}
