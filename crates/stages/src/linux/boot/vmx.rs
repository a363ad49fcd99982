//! `vmx flags`: what the VMX capability MSRs allow (`arch/x86/kernel/cpu/feat_ctl.c:init_vmx_capabilities`).

use super::state::Boot;

/// Words of `vmx_capability` (`enum vmx_feature_leafs`).
const MISC: usize = 0;
const PRIMARY: usize = 1;
const SECONDARY: usize = 2;
const TERTIARY_LOW: usize = 3;
const TERTIARY_HIGH: usize = 4;

impl Boot<'_> {
    /// Fills the VMX words and runs the rules that cite the function.
    pub(super) fn init_vmx_capabilities(&mut self) {
        let high = |boot: &mut Self, index: u32| (boot.msr_or_zero(index).0 >> 32) as u32;
        if self.msr(0x482).1 != 0 {
            // The line `vmx flags` cannot be known; the rules mark what they assume.
            self.run("init_vmx_capabilities");
            return;
        }
        let supported = high(self, 0x482);
        self.vmx[PRIMARY] = supported;
        // A read that faults leaves zeros.
        self.vmx[SECONDARY] = high(self, 0x48b);
        let (tertiary, _) = self.msr_or_zero(0x492);
        (self.vmx[TERTIARY_LOW], self.vmx[TERTIARY_HIGH]) = (tertiary as u32, (tertiary >> 32) as u32);
        let pin = high(self, 0x481);
        let functions = high(self, 0x491);
        let (ept_vpid, _) = self.msr_or_zero(0x48c);
        let vpid = (ept_vpid >> 32) as u32;
        self.vmx[MISC] = pin & 0xffff | (vpid & 1) << 16 | (functions & 0xf) << 28;
        self.vmx_combinations(ept_vpid as u32);
        self.run("init_vmx_capabilities");
    }

    /// Features that are bits of IA32_VMX_EPT_VPID_CAP, or combinations of other features.
    fn vmx_combinations(&mut self, ept: u32) {
        for (bit, feature) in [(0, "EPT_EXECUTE_ONLY"), (21, "EPT_AD"), (17, "EPT_1GB"), (7, "EPT_5LEVEL")] {
            if ept >> bit & 1 == 1 {
                self.set_vmx(feature);
            }
        }
        if self.has_vmx("VIRTUAL_TPR") && self.has_vmx("VIRT_APIC_ACCESSES") {
            self.set_vmx("FLEXPRIORITY");
        }
        let apicv = ["VIRTUAL_TPR", "APIC_REGISTER_VIRT", "VIRT_INTR_DELIVERY", "POSTED_INTR"];
        if apicv.iter().all(|feature| self.has_vmx(feature)) {
            self.set_vmx("APICV");
        }
    }

    fn vmx_place(&self, macro_name: &str) -> Option<(usize, u8)> {
        let found = self.program.vmx.iter().find(|feature| feature.macro_name == macro_name)?;
        Some((usize::from(found.word), found.bit))
    }

    fn has_vmx(&self, macro_name: &str) -> bool {
        let place = self.vmx_place(macro_name);
        place.is_some_and(|(word, bit)| self.vmx.get(word).is_some_and(|value| value >> bit & 1 == 1))
    }

    fn set_vmx(&mut self, macro_name: &str) {
        if let Some((word, bit)) = self.vmx_place(macro_name)
            && let Some(value) = self.vmx.get_mut(word)
        {
            *value |= 1 << bit;
        }
    }

    /// The line `vmx flags` (`proc.c:show_cpuinfo`): only if the first word is not empty.
    pub(super) fn vmx_flags(&self) -> Vec<&'static str> {
        if !self.has("VMX") || self.vmx[MISC] == 0 {
            return Vec::new();
        }
        let set = |word: u8, bit: u8| self.vmx.get(usize::from(word)).is_some_and(|value| value >> bit & 1 == 1);
        let shown = self.program.vmx.iter().filter(|feature| set(feature.word, feature.bit));
        shown.filter_map(|feature| feature.shown).collect()
    }
}
