#[test]
fn look() {
    let shared = std::path::Path::new("/work/shared/corpus");
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for dir in ["libvirt", "firecracker", "qemu-oracle/hosts", "guests-tcg", "guests-bochs", "guests-kvm"] {
        for entry in std::fs::read_dir(shared.join(dir)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !path.is_file() { continue; }
            let mut bytes = std::fs::read(&path).unwrap();
            if name.ends_with(".gz") {
                let mut out = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut out).unwrap();
                bytes = out;
            }
            let t = std::time::Instant::now();
            let parsed = cpusieve_formats::read(&name, &bytes);
            let t = t.elapsed();
            let s = &parsed.snapshot;
            println!("{dir}/{} {:?} {}B {t:?} cpus {} cpuid {} msrs {} exp {} kvm {} ign {:?}", &name[..name.len().min(50)], parsed.format, bytes.len(), s.cpus.len(), s.cpus.first().map_or(0, |c| c.cpuid.len()), s.cpus.first().map_or(0, |c| c.msrs.len()), s.expansions.len(), s.kvm.is_some(), parsed.ignored);
            for d in &parsed.diagnostics {
                println!("     {d}");
                *counts.entry(format!("{dir} {:?} {}", d.severity, d.what.split(|c: char| c.is_ascii_digit()).next().unwrap())).or_default() += 1;
            }
            let back = cpusieve_formats::record::print(s);
            let again = cpusieve_formats::read("x", back.as_bytes());
            assert_eq!(again.snapshot, *s, "{name}");
            assert!(again.diagnostics.iter().all(|d| d.what.contains("text")), "{:?}", again.diagnostics);
        }
    }
    for c in counts { println!("{c:?}"); }
}
