//! A guest's definition: what QEMU or another VMM is told of its CPU, and what libvirt checks of it.

use cpusieve_stages::linux::boot::Unlisted;

use super::stack::Stack;
use crate::predict::way::{Accel, Route};
use crate::want::Settings;

/// What libvirt does with a CPU that is not as it was defined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// There is no libvirt, or it is told not to look.
    #[default]
    Nothing,
    /// A guest does not start without the features that it requires.
    Partial,
    /// It does not start with other features than the definition says either. A guest that was started is so defined, and
    /// therefore it is checked in this way when it arrives by migration.
    Full,
}

/// A guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    /// What the user calls it.
    pub name: String,
    /// What executes it.
    pub accel: Accel,
    /// `-machine`, its type alone; `None` for the stack's.
    pub machine: Option<String>,
    /// `-cpu`; `None` for `host`, under TCG for `max`.
    pub cpu: Option<String>,
    /// `-smp`, or the number of vCPUs of another VMM.
    pub smp: Option<String>,
    /// Whether libvirt starts it.
    pub libvirt: bool,
    /// What libvirt checks at the start.
    pub check: Check,
    /// Whether libvirt writes the host's features into the definition when the guest starts (`host-model`).
    pub host_model: bool,
    /// What libvirt checks when the running guest arrives by migration.
    pub check_running: Check,
    /// What of the definition is not taken over, and what was assumed of it, as sentences.
    pub notes: Vec<String>,
}

impl Guest {
    /// A guest that QEMU is told to start with this text behind `-cpu`.
    #[must_use]
    pub fn of_cpu(cpu: &str) -> Self {
        Self { name: format!("-cpu {cpu}"), cpu: Some(cpu.to_owned()), ..Self::default() }
    }

    /// The text of `-cpu`.
    #[must_use]
    pub fn cpu(&self) -> &str {
        let default = if self.accel == Accel::Kvm { "host" } else { "max" };
        self.cpu.as_deref().unwrap_or(default)
    }

    /// Whether a running guest keeps the features that it was started with, whatever the host has by then.
    #[must_use]
    pub const fn is_written_out(&self) -> bool {
        self.host_model
    }

    /// How it is started on a stack, with this kernel in it.
    #[must_use]
    pub fn settings(&self, stack: &Stack, kernel: &str, unlisted: Unlisted) -> Settings {
        Settings {
            host_kernel: stack.kernel.clone(),
            host_unlisted: unlisted,
            kvm_params: stack.params.clone(),
            kvm_predicted: stack.predicted,
            accel: self.accel,
            qemu: stack.vmm.clone(),
            machine: self.machine.clone().or_else(|| stack.machine.clone()),
            cpu: self.cpu.clone(),
            smp: self.smp.clone(),
            guest_kernel: Some(kernel.to_owned()),
            ..Settings::from(&Route::default())
        }
    }
}
