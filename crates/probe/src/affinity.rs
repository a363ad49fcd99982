//! Running on one CPU after the other.
//!
//! CPUID answers for the CPU that executes it, and CPUs differ: in their APIC ids, on hybrids in their features. So
//! each online CPU is visited, by moving a thread there. The list of online CPUs comes from the kernel; no number is
//! guessed. A CPU outside the cpuset of this process cannot be visited, and is named.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

use crate::Refusal;
use crate::files::Root;

/// Up to this many CPUs are visited by the calling thread, in turn; more by threads of their own, side by side:
/// for a few CPUs, starting threads saves less than it costs.
const IN_TURN: usize = 4;

/// The most threads that visit CPUs at the same time.
const THREADS: usize = 64;

/// The most CPUs that a list may name. Linux allows 8192 (`CONFIG_NR_CPUS` with `CONFIG_MAXSMP`).
const CPUS_AT_MOST: usize = 8192;

/// The numbers of the online CPUs, ascending.
///
/// # Errors
///
/// If `/sys/devices/system/cpu/online` cannot be read or is not a list of CPUs.
pub fn online() -> Result<Vec<u32>, Refusal> {
    online_below(&Root::machine())
}

pub(crate) fn online_below(root: &Root) -> Result<Vec<u32>, Refusal> {
    let file = "sys/devices/system/cpu/online";
    let text = root.value(file)?;
    parse_list(&text).ok_or_else(|| Refusal::content(&root.path(file), "list of CPUs", &text))
}

/// The numbers of a list such as `0-3,8,10-11`, as the kernel prints it (`lib/vsprintf.c:bitmap_list_string`),
/// ascending; `None` if it is not such a list, or names more than 8192 CPUs.
fn parse_list(text: &str) -> Option<Vec<u32>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let count = last.checked_sub(first)? as usize + 1;
        if cpus.len() + count > CPUS_AT_MOST || cpus.last().is_some_and(|&before| before >= first) {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Runs `visit` on each of `cpus`, which ascend, pinned there, and returns the answers in the same order.
///
/// The calling thread's affinity is afterwards what it was before. `visit` must not change it.
pub fn on_each<T: Send>(cpus: &[u32], visit: impl Fn(u32) -> T + Sync) -> Vec<(u32, Result<T, Refusal>)> {
    if cpus.len() > IN_TURN { side_by_side(cpus, visit) } else { in_turn(cpus, visit) }
}

fn in_turn<T>(cpus: &[u32], visit: impl Fn(u32) -> T) -> Vec<(u32, Result<T, Refusal>)> {
    let home = match Home::here() {
        Ok(home) => home,
        Err(refusal) => {
            let refused = |&cpu| (cpu, Err(Refusal::Affinity { source: io::Error::other(refusal.to_string()) }));
            return cpus.iter().map(refused).collect();
        }
    };
    // Beginning with the CPU on which this thread already is saves a migration.
    let start = cpus.iter().position(|&cpu| cpu as usize == sched_getcpu()).unwrap_or(0);
    let (before, after) = cpus.split_at(start);
    let mut answers: Vec<_> = after.iter().chain(before).map(|&cpu| (cpu, pin(cpu).map(|()| visit(cpu)))).collect();
    drop(home);
    answers.rotate_right(start);
    answers
}

/// Every thread takes each n-th CPU, and ends on the last: there is nothing to restore.
fn side_by_side<T: Send>(cpus: &[u32], visit: impl Fn(u32) -> T + Sync) -> Vec<(u32, Result<T, Refusal>)> {
    let threads = cpus.len().clamp(1, THREADS);
    let share = |first: usize| -> Vec<(u32, Result<T, Refusal>)> {
        cpus.iter().skip(first).step_by(threads).map(|&cpu| (cpu, pin(cpu).map(|()| visit(cpu)))).collect()
    };
    let mut answers: Vec<_> = std::thread::scope(|scope| {
        let share = &share;
        let spawn = |first| std::thread::Builder::new().spawn_scoped(scope, move || share(first));
        let running: Vec<_> = (0..threads).map(spawn).collect();
        let finished =
            running.into_iter().enumerate().map(|(first, thread)| match thread.map(|thread| thread.join()) {
                Ok(Ok(answers)) => answers,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(error) => {
                    let refused = |&cpu| (cpu, Err(Refusal::Pin { cpu, source: io::Error::from(error.kind()) }));
                    cpus.iter().skip(first).step_by(threads).map(refused).collect()
                }
            });
        finished.collect::<Vec<_>>().into_iter().flatten().collect()
    });
    answers.sort_by_key(|(cpu, _)| *cpu);
    answers
}

/// Moves the calling thread to a CPU. When this returns, the thread runs there
/// (`kernel/sched/core.c:__set_cpus_allowed_ptr` waits for the migration).
fn pin(cpu: u32) -> Result<(), Refusal> {
    let number = cpu as usize;
    if number >= CpuSet::MAX_CPU {
        let source = io::Error::new(io::ErrorKind::Unsupported, "only CPUs 0 to 1023 are visited");
        return Err(Refusal::Pin { cpu, source });
    }
    let mut only = CpuSet::new();
    only.set(number);
    sched_setaffinity(None, &only).map_err(|errno| Refusal::Pin { cpu, source: errno.into() })
}

/// The affinity that the calling thread had, given back when this is dropped, also when a visit panics.
struct Home(CpuSet);

impl Home {
    fn here() -> Result<Self, Refusal> {
        sched_getaffinity(None).map(Self).map_err(|errno| Refusal::Affinity { source: errno.into() })
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // It can only fail if the cpuset was taken away meanwhile; then the kernel itself has moved the thread.
        let _ = sched_setaffinity(None, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_kernel_prints_them() {
        assert_eq!(parse_list("0"), Some(vec![0]));
        assert_eq!(parse_list("0-3,8,10-11"), Some(vec![0, 1, 2, 3, 8, 10, 11]));
        for bad in ["", ",", "3-1", "0-", "-1", "a", "0-4294967295", "0-8192", "1,0", "0-3,2", "0 1"] {
            assert_eq!(parse_list(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_online_cpu_is_visited_in_order_and_the_affinity_comes_back() {
        let before: Vec<bool> = affinity();
        let cpus = online().unwrap();
        for visited in [in_turn(&cpus, |_| sched_getcpu()), side_by_side(&cpus, |_| sched_getcpu())] {
            assert_eq!(visited.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), cpus);
            for (cpu, seen) in visited {
                // A CPU outside the cpuset of the tests is refused, not silently replaced by another one.
                assert!(seen.is_err() || seen.unwrap() == cpu as usize);
            }
        }
        assert_eq!(affinity(), before);
    }

    #[test]
    fn a_cpu_that_does_not_exist_is_refused() {
        let before = affinity();
        for cpu in [1023, 5000] {
            let visited = on_each(&[cpu], |_| ());
            assert!(matches!(visited.as_slice(), [(refused, Err(Refusal::Pin { .. }))] if *refused == cpu));
        }
        let many: Vec<_> = (1000..1010).collect();
        let visited = on_each(&many, |_| ());
        assert_eq!(visited.iter().map(|(cpu, _)| *cpu).collect::<Vec<_>>(), many);
        assert!(visited.iter().all(|(_, seen)| seen.is_err()));
        assert_eq!(affinity(), before);
    }

    fn affinity() -> Vec<bool> {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).map(|cpu| set.is_set(cpu)).collect()
    }
}
