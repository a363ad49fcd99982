//! What the cases of `__do_cpuid_func` make of the registers of one entry.

use cpusieve_knowledge::kvm::{self, Bound, Gate, How};
use cpusieve_knowledge::linux::TREES;
use cpusieve_knowledge::own;
use cpusieve_model::{Register, Registers, Vendor};

use super::module::{Backend, Module};
use super::plan::Cell;
use super::setup::Switch;

impl Module<'_> {
    /// The registers of an entry, from those that the CPU returned.
    pub(super) fn registers(&self, leaf: u32, subleaf: u32, raw: Registers) -> Registers {
        let cells = self.plan.cells(leaf);
        let mut registers = Registers::default();
        for cell in cells {
            let answer = cell.answer;
            if !(answer.first_subleaf..=answer.last_subleaf).contains(&subleaf) {
                continue;
            }
            let holds = if answer.gates == [Gate::Otherwise] {
                let same = |other: &&Cell| other.answer.register == answer.register && other.gates != cell.gates;
                !cells.iter().filter(same).any(|other| self.gates_hold(other))
            } else {
                self.gates_hold(cell)
            };
            if holds {
                *registers.get_mut(answer.register) = self.value(cell, raw);
            }
        }
        registers
    }

    /// Whether a leaf is more than zeros: the gates of its rows hold.
    pub(super) fn is_answered(&self, leaf: u32) -> bool {
        self.plan.cells(leaf).first().is_some_and(|cell| self.gates_hold(cell))
    }

    /// Whether this release hands on all subleaves of a leaf.
    pub(super) fn has_many(&self, leaf: u32) -> bool {
        self.plan.cells(leaf).iter().any(|cell| cell.answer.last_subleaf == u32::MAX)
    }

    pub(super) fn gates_hold(&self, cell: &Cell) -> bool {
        cell.gates.iter().all(|(gate, slot, kernel)| match gate {
            Gate::Cap(_) => slot.is_some_and(|slot| slot.is_set(&self.caps)),
            Gate::HostFlag(_) => self.kernel.bit(*kernel),
            Gate::Pmu => self.switch(Switch::EnablePmu),
            Gate::AmdModule => self.backend == Backend::Amd,
            Gate::Otherwise => false,
        })
    }

    fn value(&self, cell: &Cell, raw: Registers) -> u32 {
        let same = raw.get(cell.answer.register);
        let word = || self.caps.get(usize::from(cell.word)).copied().unwrap_or(0);
        let permitted = || self.permitted_xcr0();
        match cell.answer.how {
            How::Raw => same,
            How::RawAnd(mask) => same & mask,
            How::RawEbx => raw.ebx,
            How::Caps => word(),
            How::CapsAnd(mask) => word() & mask,
            How::Limited => self.limit(cell.answer.leaf, same),
            How::Constant(value) => value,
            How::Pmu => self.counters(cell),
            How::Paravirtual => self.paravirtual(),
            How::Xcr0Low => same & permitted() as u32,
            How::Xcr0High => same & (permitted() >> 32) as u32,
            How::XssLow => same & self.supported_xss as u32,
            How::XssHigh => same & (self.supported_xss >> 32) as u32,
            How::XsaveSize => self.xstate_required_size(permitted(), false),
            How::XsaveSizeCompacted if self.has("XSAVES") || self.has("XSAVEC") => {
                self.xstate_required_size(permitted() | self.supported_xss, true)
            }
            How::XsaveSizeCompacted => 0,
            How::StateComponent => self.state_component(cell.answer.register, same),
            How::AddressBits => self.address_bits(same),
            How::Avx10Version => {
                let newest = if self.release() >= (7, 1) { 2 } else { 1 };
                word() | (same & 0xff).min(newest)
            }
        }
    }

    /// EAX of a leaf that says how far something goes.
    fn limit(&self, leaf: u32, raw: u32) -> u32 {
        let mut limited = raw;
        let limit = |bound: Bound| kvm::leaf_caps(self.tree).find(|limit| limit.leaf == leaf && limit.bound == bound);
        if let Some(most) = limit(Bound::AtMost) {
            limited = limited.min(most.value);
        }
        if let Some(least) = limit(Bound::AtLeast)
            && limited >= RAISED_FROM
            && (self.boot_cpu_has("LFENCE_RDTSC") || !self.boot_cpu_has_bug("NULL_SEG"))
        {
            limited = limited.max(least.value);
        }
        limited
    }

    /// Leaf 0AH, and EBX of 80000022H.
    fn counters(&self, cell: &Cell) -> u32 {
        let pmu = &self.pmu;
        match (cell.answer.leaf, cell.answer.register) {
            (0xa, Register::Eax) => pmu.version | pmu.counters << 8 | pmu.width << 16 | pmu.events_mask_len << 24,
            (0xa, Register::Ebx) => pmu.events_mask,
            (0xa, Register::Edx) => {
                // Bit 15: no counter counts for both threads of a core. Told from 5.8 on.
                let any_thread = u32::from(pmu.version > 0 && self.release() >= (5, 8));
                pmu.fixed_counters | pmu.fixed_width << 5 | any_thread << 15
            }
            (0x8000_0022, Register::Ebx) => pmu.counters & 0xf,
            _ => 0,
        }
    }

    /// `sched_info_on`: the kernel accounts delays.
    fn sched_info_on(&self) -> bool {
        self.touched.set(0);
        let on = self.config("SCHED_INFO");
        self.hang("kvm_steal_time", self.touched.get());
        on
    }

    /// `KVM_CPUID_FEATURES`.
    fn paravirtual(&self) -> u32 {
        let offered = |condition: Option<&str>| match condition {
            None => true,
            Some("sched_info_on()") => self.sched_info_on(),
            Some(_) => false,
        };
        let features = kvm::pv_features(self.tree).filter(|feature| offered(feature.condition));
        features.fold(0, |bits, feature| bits | 1 << feature.bit)
    }

    /// ECX\[2\] says that the component is one that XFD can disable.
    fn state_component(&self, register: Register, raw: u32) -> u32 {
        let hides_xfd = register == Register::Ecx && self.release() >= (6, 0) && !self.has("XFD");
        if hides_xfd { raw & !(1 << 2) } else { raw }
    }

    /// 80000008H:EAX. KVM's idea of the guest's physical address width changed with the releases.
    fn address_bits(&self, raw: u32) -> u32 {
        let (physical, virtual_bits, guest) = (raw & 0xff, (raw >> 8 & 0xff).max(48), raw >> 16 & 0xff);
        let told = if guest == 0 { physical } else { guest };
        let release = self.release();
        let stable_6_1 =
            TREES.get(own::compiled(self.tree)).is_some_and(|tree| ["6.1", "6.1.192"].contains(&tree.label));
        let physical = match release {
            // The CPU's word for nested paging is believed always, ...
            (..=4, _) => told,
            // ... with nested paging alone, ...
            (5, ..=12) if self.tdp() => told,
            (5, ..=12) => physical,
            _ if !self.tdp() => self.x86_phys_bits(physical),
            // ... and from 6.9 on (and 6.1.y) no more.
            _ if release >= (6, 9) || stable_6_1 => physical,
            _ => told,
        };
        let addressable = match (release >= (6, 10), self.tdp()) {
            (true, true) if self.five_level_tdp() => physical,
            (true, true) => physical.min(48),
            _ => 0,
        };
        physical | virtual_bits << 8 | addressable << 16
    }

    /// `mmu.c:kvm_mmu_get_max_tdp_level`: five levels of EPT, or of NPT if the host's kernel uses five itself.
    fn five_level_tdp(&self) -> bool {
        match self.backend {
            Backend::Intel => self.vmx_ept(7),
            Backend::Amd => self.boot_cpu_has("LA57"),
        }
    }

    /// `boot_cpu_data.x86_phys_bits`: what memory encryption takes for its keys is no address.
    fn x86_phys_bits(&self, raw: u32) -> u32 {
        let taken = match self.vendor() {
            Vendor::Intel if self.boot_cpu_has("TME") => match self.msr(0x982).unwrap_or(0) {
                active if active & 3 == 3 => (active >> 32 & 0xf) as u32,
                _ => 0,
            },
            Vendor::Amd | Vendor::Hygon if self.cpuid(0x8000_001f, 0).eax & 3 != 0 => {
                let on = self.msr(0xc001_0010).unwrap_or(0) >> 23 & 1 == 1;
                if on { self.cpuid(0x8000_001f, 0).ebx >> 6 & 0x3f } else { 0 }
            }
            _ => 0,
        };
        raw.saturating_sub(taken)
    }
}

/// From this maximum of the extended leaves on KVM may raise it.
const RAISED_FROM: u32 = 0x8000_001d;
