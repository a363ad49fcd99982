//! The settings of a virtual machine and its host, owned, so that changes can be made to them.

use cpusieve_model::Snapshot;
use cpusieve_stages::linux::boot::Unlisted;

use super::change::{self, Change, Word};
use super::cpu_text::CpuText;
use crate::predict::Kernel;
use crate::predict::kvm;
use crate::predict::way::{Accel, Route, Vm};

/// A [`Route`] that owns its texts. What is `None` is as the input shows it, or assumed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the route")]
pub struct Settings {
    pub host_kernel: Option<String>,
    pub host_cmdline: Option<String>,
    pub host_unlisted: Unlisted,
    pub kvm_params: Vec<(String, String)>,
    pub kvm_predicted: bool,
    pub kvm_permitted: u64,
    pub accel: Accel,
    pub qemu: Option<String>,
    pub machine: Option<String>,
    pub cpu: Option<String>,
    pub smp: Option<String>,
    pub cpu_pm: bool,
    pub guest_kernel: Option<String>,
    pub guest_cmdline: Option<String>,
    pub guest_unlisted: Unlisted,
}

impl From<&Route<'_>> for Settings {
    fn from(route: &Route<'_>) -> Self {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Self {
            host_kernel: owned(route.kvm.kernel.release),
            host_cmdline: owned(route.kvm.kernel.cmdline),
            host_unlisted: route.kvm.kernel.unlisted,
            kvm_params: route.kvm.params.to_vec(),
            kvm_predicted: route.kvm.predicted,
            kvm_permitted: route.kvm.permitted,
            accel: route.vm.accel,
            qemu: owned(route.vm.qemu),
            machine: owned(route.vm.machine),
            cpu: owned(route.vm.cpu),
            smp: owned(route.vm.smp),
            cpu_pm: route.vm.cpu_pm,
            guest_kernel: owned(route.guest.release),
            guest_cmdline: owned(route.guest.cmdline),
            guest_unlisted: route.guest.unlisted,
        }
    }
}

impl Settings {
    /// The route that these settings are.
    #[must_use]
    pub fn route(&self) -> Route<'_> {
        let host = Kernel {
            release: self.host_kernel.as_deref(),
            cmdline: self.host_cmdline.as_deref(),
            unlisted: self.host_unlisted,
            ..Route::default().kvm.kernel
        };
        let guest = Kernel {
            release: self.guest_kernel.as_deref(),
            cmdline: self.guest_cmdline.as_deref(),
            unlisted: self.guest_unlisted,
            ..Route::default().guest
        };
        let (predicted, permitted) = (self.kvm_predicted, self.kvm_permitted);
        let question = kvm::Question { params: &self.kvm_params, predicted, permitted, ..kvm::Question::new(host) };
        let vm = Vm {
            accel: self.accel,
            qemu: self.qemu.as_deref(),
            machine: self.machine.as_deref(),
            cpu: self.cpu.as_deref(),
            smp: self.smp.as_deref(),
            cpu_pm: self.cpu_pm,
        };
        Route { kvm: question, vm, guest }
    }

    /// The text of `-cpu`, with the one that is taken where none was given.
    #[must_use]
    pub fn cpu(&self) -> CpuText {
        let default = if self.accel == Accel::Kvm { "host" } else { "max" };
        CpuText::parse(self.cpu.as_deref().unwrap_or(default))
    }

    /// The host kernel's command line, as far as it was seen.
    #[must_use]
    pub fn host_cmdline<'a>(&'a self, snapshot: &'a Snapshot) -> Option<&'a str> {
        let seen = || snapshot.linux.as_ref().and_then(|linux| linux.cmdline.as_deref());
        self.host_cmdline.as_deref().or_else(seen)
    }

    /// These settings with changes made. The order of the changes does not matter: none touches what another does.
    #[must_use]
    pub fn with<'a>(&self, changes: impl IntoIterator<Item = &'a Change>, snapshot: &Snapshot) -> Self {
        let mut settings = self.clone();
        changes.into_iter().for_each(|change| settings.apply(change, snapshot));
        settings
    }

    fn apply(&mut self, change: &Change, snapshot: &Snapshot) {
        match change {
            Change::Model { to, .. } => {
                let mut cpu = self.cpu();
                // A named model does not know what `host` alone has.
                if to != "host" && to != "max" {
                    ["migratable", "host-cache-info"].into_iter().for_each(|property| cpu.remove(property));
                }
                cpu.model.clone_from(to);
                self.cpu = Some(cpu.to_string());
            }
            Change::Property { name, value, .. } => {
                let mut cpu = self.cpu();
                match value {
                    Some(value) => cpu.set(name, value),
                    None => cpu.remove(name),
                }
                self.cpu = Some(cpu.to_string());
            }
            Change::CpuPm => self.cpu_pm = true,
            Change::Machine { to, .. } => {
                let options = self.machine.as_deref().and_then(|machine| machine.split_once(','));
                self.machine = Some(options.map_or_else(|| to.clone(), |(_, options)| format!("{to},{options}")));
            }
            Change::Kvm => {
                self.accel = Accel::Kvm;
                let mut cpu = self.cpu();
                if cpu.model == "max" {
                    cpu.model = "host".to_owned();
                }
                self.cpu = Some(cpu.to_string());
            }
            Change::Smp(text) => self.smp = Some(text.clone()),
            Change::GuestCmdline(word) => {
                self.guest_cmdline = Some(word.edited(self.guest_cmdline.as_deref().unwrap_or_default()));
            }
            Change::HostCmdline(word) => {
                let edited = word.edited(self.host_cmdline(snapshot).unwrap_or_default());
                self.host_cmdline = Some(edited);
            }
            Change::Param { name, value } => {
                let bare = |name: &str| name.rsplit('.').next().unwrap_or_default().replace('-', "_");
                self.kvm_params.retain(|(known, _)| bare(known) != bare(name));
                self.kvm_params.push((name.clone(), value.clone()));
            }
            Change::GuestKernel { tree, .. } => self.guest_kernel = Some(change::kernel(*tree).to_owned()),
            Change::HostKernel { tree, .. } => self.host_kernel = Some(change::kernel(*tree).to_owned()),
            Change::Qemu(position) => self.qemu = Some(change::release(*position).to_owned()),
        }
    }
}

impl Word {
    /// A command line with this done to it.
    fn edited(&self, cmdline: &str) -> String {
        let words = cmdline.split_ascii_whitespace();
        let words: Vec<String> = match self {
            Self::Add(word) => words.chain([word.as_str()]).map(str::to_owned).collect(),
            Self::Remove(gone) => words.filter(|word| word != gone).map(str::to_owned).collect(),
            Self::Unlist { key, item } => words.filter_map(|word| unlisted(word, key, item)).collect(),
        };
        words.join(" ")
    }
}

/// A word without an item of its list; none if that was the last.
fn unlisted(word: &str, key: &str, item: &str) -> Option<String> {
    let Some((_, list)) = word.split_once('=').filter(|(name, _)| *name == key) else { return Some(word.to_owned()) };
    let rest: Vec<&str> = list.split(',').filter(|other| *other != item).collect();
    (!rest.is_empty()).then(|| format!("{key}={}", rest.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_edited_word_by_word() {
        let of = |word: Word, line: &str| word.edited(line);
        assert_eq!(of(Word::Add("nosmep".into()), "quiet"), "quiet nosmep");
        assert_eq!(of(Word::Remove("nosmep".into()), "quiet nosmep ro"), "quiet ro");
        let unlist = || Word::Unlist { key: "clearcpuid".into(), item: "avx".into() };
        assert_eq!(of(unlist(), "quiet clearcpuid=avx,smep"), "quiet clearcpuid=smep");
        assert_eq!(of(unlist(), "quiet clearcpuid=avx"), "quiet");
    }

    #[test]
    fn the_hosts_own_properties_go_with_it() {
        let start = Settings { cpu: Some("host,migratable=off,+x2apic".into()), ..Settings::from(&Route::default()) };
        let change = Change::Model { to: "EPYC".into(), kind: change::ModelKind::Other };
        let changed = start.with([&change], &Snapshot::default());
        assert_eq!(changed.cpu.as_deref(), Some("EPYC,+x2apic"));
    }
}
