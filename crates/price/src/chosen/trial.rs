//! The same work by programs that others wrote, as they are and told to overlook a feature: a cross-check of our own works.
//!
//! OpenSSL is told by `OPENSSL_ia32cap`, glibc by `GLIBC_TUNABLES`. An empty `OPENSSL_ia32cap`, and one that gives fewer
//! words than there are, clears the words that it does not give (`crypto/cpuid.c:OPENSSL_cpuid_setup`), so that all five
//! pairs are always given, and it is asked first whether the mask took what it should and nothing else.

use std::process::Command;
use std::time::Duration;

use super::ask::output;
use super::{glibc, openssl};
use crate::stats::Interval;

/// How long one run of a program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The bytes that OpenSSL works on at a time: the block of TLS.
const BYTES: &str = "16384";

/// A piece of work of somebody else's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// A name that stays, and that of our own work where there is one: `aes-256-gcm`.
    pub id: &'static str,
    /// The ids of the features that are masked.
    pub features: &'static [&'static str],
    /// For people.
    pub title: &'static str,
    program: Program,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// `openssl speed`: its arguments, and the bits that are masked in each pair of words.
    Openssl(&'static [&'static str], [u64; 5]),
    /// A function of glibc, called by Python.
    Glibc(&'static str),
}

const AES: u64 = 1 << 57;
const PCLMULQDQ: u64 = 1 << 33;
const SHA: u64 = 1 << 29;

/// All trials.
pub const TRIALS: [Trial; 7] = [
    Trial {
        id: "aes-256-gcm",
        features: &["aes"],
        title: "AES-256-GCM, 16 KiB",
        program: Program::Openssl(&["-evp", "aes-256-gcm"], [AES, 0, 0, 0, 0]),
    },
    Trial {
        id: "aes-256-gcm-neither",
        features: &["aes", "pclmulqdq"],
        title: "AES-256-GCM, 16 KiB",
        program: Program::Openssl(&["-evp", "aes-256-gcm"], [AES | PCLMULQDQ, 0, 0, 0, 0]),
    },
    Trial {
        id: "aes-256-cbc",
        features: &["aes"],
        title: "AES-256-CBC encrypt, 16 KiB",
        program: Program::Openssl(&["-evp", "aes-256-cbc"], [AES, 0, 0, 0, 0]),
    },
    Trial {
        id: "aes-256-cbc-decrypt",
        features: &["aes"],
        title: "AES-256-CBC decrypt, 16 KiB",
        program: Program::Openssl(&["-decrypt", "-evp", "aes-256-cbc"], [AES, 0, 0, 0, 0]),
    },
    Trial {
        id: "sha-256",
        features: &["sha_ni"],
        title: "SHA-256, 16 KiB",
        program: Program::Openssl(&["-evp", "sha256"], [0, SHA, 0, 0, 0]),
    },
    Trial {
        id: "memchr",
        features: &["avx2"],
        title: "glibc's memchr, 64 KiB",
        program: Program::Glibc("a.find(b'x')"),
    },
    Trial { id: "memcmp", features: &["avx2"], title: "glibc's memcmp, 64 KiB", program: Program::Glibc("a==c") },
];

/// What a trial found.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The trial.
    pub trial: Trial,
    /// The program: `OpenSSL 3.0.19 27 Jan 2026`, `glibc 2.36`.
    pub program: String,
    /// How it was told: `OPENSSL_ia32cap=...`.
    pub told: String,
    /// Bytes a second with the feature.
    pub with: Interval,
    /// Bytes a second without it.
    pub without: Interval,
    /// The first by the second, pair by pair.
    pub ratio: Interval,
}

/// Runs a trial: so many pairs with and without, in turn; three times as many of what takes a fifth of the time.
///
/// # Errors
///
/// Why it cannot be run, for people.
pub fn run(trial: &Trial, pairs: usize) -> Result<Outcome, String> {
    let (program, variable, value) = prepare(trial)?;
    let once = |masked: bool| {
        let mut command = command(trial);
        command.env_remove("OPENSSL_ia32cap").env_remove("GLIBC_TUNABLES");
        command.envs(masked.then_some((variable, value.as_str())));
        let text = output(&mut command, LIMIT)?;
        rate(trial, &text).ok_or_else(|| format!("{program} printed no rate"))
    };
    let pairs = if matches!(trial.program, Program::Glibc(_)) { pairs * 3 } else { pairs };
    let mut samples = Vec::with_capacity(pairs);
    for pair in 0..pairs.max(1) {
        // What drifts falls on both alike.
        let masked_first = pair % 2 == 1;
        let (first, second) = (once(masked_first)?, once(!masked_first)?);
        samples.push(if masked_first { (second, first) } else { (first, second) });
    }
    let interval = |of: fn(&(f64, f64)) -> f64| {
        Interval::of(&samples.iter().map(of).collect::<Vec<_>>()).ok_or_else(|| format!("{program} was not timed"))
    };
    let (with, without) = (interval(|pair| pair.0)?, interval(|pair| pair.1)?);
    let ratio = interval(|pair| pair.0 / pair.1)?;
    Ok(Outcome { trial: *trial, told: format!("{variable}={value}"), program, with, without, ratio })
}

fn command(trial: &Trial) -> Command {
    match trial.program {
        Program::Openssl(arguments, _) => {
            let mut command = Command::new("openssl");
            command.args(["speed", "-mr", "-seconds", "1", "-bytes", BYTES]).args(arguments);
            command
        }
        Program::Glibc(expression) => {
            // A fifth of a second in batches; the interpreter's own work is some 50 ns a call.
            let script = format!(
                "import time\na=bytes(65536);c=bytes(65537)[1:];t=time.perf_counter;r=range(200);n=0\n\
                 for i in r:{expression}\ns=t();e=s\nwhile e-s<.2:\n for i in r:{expression}\n n+=200;e=t()\n\
                 print('rate',n*65536/(e-s))\n"
            );
            let mut command = Command::new("python3");
            command.args(["-S", "-E", "-c", &script]);
            command
        }
    }
}

/// The program's name, the variable that it obeys, and what masks the features; if that works.
fn prepare(trial: &Trial) -> Result<(String, &'static str, String), String> {
    match trial.program {
        Program::Openssl(_, bits) => {
            let (release, before) = openssl::told(None)?;
            let mask: Vec<String> = bits.iter().map(|bits| format!("~{bits:#x}")).collect();
            let mask = mask.join(":");
            let (_, after) = openssl::told(Some(&mask))?;
            let words = bits.iter().flat_map(|&bits| [bits as u32, (bits >> 32) as u32]);
            let pairs = || before.iter().zip(&after).zip(words.clone());
            if pairs().any(|((&before, &after), bits)| before & !bits != after) {
                return Err(format!("{release} does not take OPENSSL_ia32cap={mask} as it should"));
            }
            if pairs().any(|((&before, _), bits)| before & bits != bits) {
                return Err(format!("this CPU lacks {}", trial.features.join(" and ")));
            }
            Ok((release, "OPENSSL_ia32cap", mask))
        }
        Program::Glibc(_) => {
            const MASK: &str = "glibc.cpu.hwcaps=-AVX2";
            let before = glibc::parse(&glibc::diagnostics(None)?).ok_or("the linker names no folders")?;
            let after = glibc::parse(&glibc::diagnostics(Some(MASK))?).ok_or("the linker names no folders")?;
            let level = |linker: &glibc::Linker| linker.searched.iter().any(|name| name == "x86-64-v3");
            match (level(&before), level(&after)) {
                (false, _) => Err("this CPU lacks avx2, or another feature of x86-64-v3".to_owned()),
                (true, true) => Err(format!("this glibc does not take GLIBC_TUNABLES={MASK}")),
                (true, false) => {
                    let program = format!("glibc {}", before.release.unwrap_or_default());
                    Ok((program.trim_end().to_owned(), "GLIBC_TUNABLES", MASK.to_owned()))
                }
            }
        }
    }
}

/// Bytes a second, as the program printed them.
fn rate(trial: &Trial, text: &str) -> Option<f64> {
    let number = match trial.program {
        // `+F:25:AES-256-GCM:3403366400.00`, one rate for one size.
        Program::Openssl(..) => text.lines().find_map(|line| line.strip_prefix("+F:"))?.rsplit(':').next()?,
        Program::Glibc(_) => text.lines().find_map(|line| line.strip_prefix("rate "))?,
    };
    number.trim().parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_nonsense_is_none() {
        let gcm = &TRIALS[0];
        assert_eq!(rate(gcm, "+H:16384\n+F:25:AES-256-GCM:3403366400.00\n"), Some(3_403_366_400.0));
        for bad in ["", "+F:25:AES-256-GCM:", "+F:inf", "+F:1:x:-3", "+R:1"] {
            assert_eq!(rate(gcm, bad), None, "{bad}");
        }
        assert_eq!(rate(&TRIALS[5], "rate 65758675643.5\n"), Some(65_758_675_643.5));
    }

    #[test]
    fn masks_are_the_bits_of_their_features() {
        let words = [(1, "EDX"), (1, "ECX"), (7, "EBX"), (7, "ECX"), (7, "EDX")];
        for trial in TRIALS {
            let Program::Openssl(_, bits) = trial.program else { continue };
            let mut named = Vec::new();
            for (word, (leaf, register)) in words.iter().enumerate() {
                let mask = bits[word / 2] >> (word % 2 * 32) as u32 & 0xffff_ffff;
                for bit in (0..32).filter(|bit| mask >> bit & 1 == 1) {
                    let register = cpusieve_model::Register::from_name(register).unwrap();
                    let place = cpusieve_model::Place::Cpuid(cpusieve_model::CpuidBit::new(*leaf, 0, register, bit));
                    named.push(cpusieve_knowledge::x86::by_place(place).unwrap().id);
                }
            }
            named.sort_unstable();
            let mut features = trial.features.to_vec();
            features.sort_unstable();
            assert_eq!(named, features, "{}", trial.id);
        }
    }

    #[test]
    fn what_is_installed_here_obeys_its_mask() {
        for trial in TRIALS {
            match prepare(&trial) {
                Ok((program, variable, value)) => println!("{}: {program}, {variable}={value}", trial.id),
                Err(why) => println!("skipped: {}: {why}", trial.id),
            }
        }
    }
}
