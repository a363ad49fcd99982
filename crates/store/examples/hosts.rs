//! Makes a large fleet to measure with: `hosts NUMBER KINDS FILE.arrow`. Every kind is a real host of the corpus without
//! a few of its features, chosen by a fixed sequence; the first kinds are these hosts as they are, and keep their records.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "an example of effects that says what it did")]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Read as _};
use std::path::Path;
use std::sync::Arc;

use cpusieve_fleet::{Catalogue, Host, Kind, Member, Setting, Software};
use cpusieve_knowledge::qemu::{self, RELEASES};
use cpusieve_stages::linux::boot::Unlisted;
use cpusieve_store::{Stamp, Writer, columns};

/// Features that a kind lacks beside its model.
const LACKING: u64 = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("{what}?"));
    let hosts: usize = next("how many hosts")?.parse()?;
    let kinds: usize = next("how many kinds")?.parse()?;
    let file = next("which file")?;
    let release = RELEASES.len() - 1;
    let machine = qemu::machine(release, "pc")?;
    let setting = Setting { release, machine, kernel: None, params: &[], nested: true };
    let real = real(&setting)?;
    let catalogue = Catalogue::of(release);
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below.max(1)
    };
    let mut writer = Writer::arrow(BufWriter::new(File::create(&file)?), &Stamp::of(&setting))?;
    let software =
        Arc::new(Software { kernel: Some("6.12.9".to_owned()), microcode: Some(0x2b), ..Software::default() });
    for number in 0..kinds {
        let of_kind = hosts / kinds + usize::from(number < hosts % kinds);
        let of = |host: &Host| Kind {
            offer: host.offer.clone(),
            vendor: host.ground.vendor,
            signature: host.ground.cpuid.get(1, 0).map_or(0, |leaf| leaf.eax),
            ground: None,
            hosts: of_kind,
        };
        let kind = match real.get(number) {
            Some(host) => Kind { ground: Some(host.ground.clone()), ..of(host) },
            None => {
                let mut kind = of(real.get(random(real.len())).ok_or("no hosts")?);
                let has: Vec<_> = catalogue.in_words(&kind.offer.own).collect();
                for _ in 0..LACKING {
                    for &(at, mask) in has.get(random(has.len())).map_or(&[][..], |property| property.bits()) {
                        let offer = &mut kind.offer;
                        for words in [&mut offer.own, &mut offer.words, &mut offer.kvm] {
                            words[at] &= !mask;
                        }
                    }
                }
                kind
            }
        };
        let member = |one: usize| Member {
            name: format!("rack-{:04}/host-{number:07}-{one}", number / 40),
            kind: 0,
            tsc_khz: Some(2_000_000),
            nested: false,
            software: Arc::clone(&software),
        };
        writer.push(kind, (0..of_kind).map(member).collect())?;
    }
    writer.finish(&[])?;
    println!("{}", 4 * (columns().len() + 1) * kinds);
    Ok(())
}

/// The hosts of the corpus.
fn real(setting: &Setting<'_>) -> Result<Vec<Host>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../corpus/qemu-oracle/hosts");
    let mut files: Vec<_> = std::fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut hosts = Vec::new();
    for file in files {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(File::open(&file)?).read_to_end(&mut bytes)?;
        let seen = cpusieve_formats::read("host", &bytes).snapshot;
        hosts.push(Host::of(&file.display().to_string(), &seen, Unlisted::NotSeen, setting)?);
    }
    Ok(hosts)
}
