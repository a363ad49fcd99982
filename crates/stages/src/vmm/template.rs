//! Firecracker's CPU templates: which is taken, and what it changes.

use cpusieve_knowledge::vmm;
use cpusieve_model::{BitFilter, CapabilityCheck, CpuTemplate, CpuidModifier, Vendor};

use super::{Error, Vcpu};

/// From this release on, C3 warns on Skylake alone; before, on whatever compares as older than Cascade Lake.
const EXACT_MODELS: &str = "1.12";

/// Leaf 1 EAX of Skylake and Cascade Lake servers as Firecracker names them.
const SKYLAKE: u32 = 0x50654;
const CASCADE_LAKE: u32 = 0x50657;

/// `get_cpu_template`: the static template of this name, if the host's CPU is one that it is for.
pub(super) fn get_cpu_template(vcpu: &mut Vcpu<'_>, name: &str, vendor: Vendor) -> Result<CpuTemplate, Error> {
    let release = vcpu.question.release;
    let unknown = || Error::NoSuchTemplate(name.to_owned());
    let template = vmm::template(release, name).ok_or_else(unknown)?;
    let hosts = vmm::template_hosts(release, name).ok_or_else(unknown)?;
    if hosts.vendor != vendor {
        return Err(Error::TemplateVendor(name.to_owned()));
    }
    let Some(signature) = vcpu.question.host.and_then(|host| host.get(1, 0)).map(|leaf| leaf.eax) else {
        vcpu.assume("host's leaf 1", "a CPU that the template is for", "the host's CPUID was not seen");
        return Ok(template);
    };
    if !hosts.hosts.has(signature) {
        return Err(Error::TemplateHost { template: name.to_owned(), signature });
    }
    let exact = release >= vmm::Vmm::Firecracker.since(EXACT_MODELS);
    let without_answers = if exact {
        vmm::Hosts::These(&[SKYLAKE]).has(signature)
    } else {
        !vmm::Hosts::From(CASCADE_LAKE).has(signature)
    };
    if name == "C3" && without_answers {
        vcpu.warnings.push(
            "this CPU does not say in IA32_ARCH_CAPABILITIES that it is immune to stale data from MMIO (FBSDP_NO, \
             PSDP_NO, SBDR_SSDP_NO), and a guest kernel under this template does not mitigate it"
                .to_owned(),
        );
    }
    Ok(template)
}

/// `apply_template`: the changes to CPUID and MSRs, in the order of the template.
pub(super) fn apply_template(vcpu: &mut Vcpu<'_>, template: &CpuTemplate, rule: &'static str) -> Result<(), Error> {
    check_capabilities(vcpu, template)?;
    let mut msrs = Vec::new();
    for modifier in &template.msrs {
        msrs.push((modifier.index, read_msr(vcpu, modifier.index)?));
    }
    for &CpuidModifier { leaf, subleaf, flags, register } in &template.cpuid {
        if vcpu.table.entry(leaf, subleaf).is_none() {
            return Err(Error::TemplateLeaf { leaf, subleaf });
        }
        vcpu.table.set_flags(leaf, subleaf, flags);
        if let Some((register, bits)) = register {
            vcpu.table.write((leaf, subleaf, register), low(bits.mask), low(bits.value), rule);
        }
    }
    for (modifier, (index, before)) in template.msrs.iter().zip(msrs) {
        let BitFilter { mask, value } = modifier.bits;
        let before = vcpu.msrs.get(&index).copied().or(before);
        match before {
            Some(before) => _ = vcpu.msrs.insert(index, modifier.bits.apply(before)),
            None if mask == u64::MAX => _ = vcpu.msrs.insert(index, value),
            None => {
                let because = "its value on a new vCPU was not seen, and the template leaves some bits as they are";
                vcpu.assume(format!("MSR {index:X}H"), "not known", because);
            }
        }
    }
    Ok(())
}

/// The low half: a register of CPUID has 32 bits.
fn low(bits: u64) -> u32 {
    (bits & u64::from(u32::MAX)) as u32
}

/// The capabilities that a template adds to those that Firecracker always asks for.
fn check_capabilities(vcpu: &mut Vcpu<'_>, template: &CpuTemplate) -> Result<(), Error> {
    for check in &template.capabilities {
        let CapabilityCheck::Add(number) = *check else { continue };
        match vcpu.question.kvm.caps.get(&number) {
            Some(&value) if value > 0 => {}
            Some(_) => return Err(Error::TemplateCapability(number)),
            None => vcpu.assume(format!("capability {number} of KVM"), "there", "it was not asked for in the record"),
        }
    }
    Ok(())
}

/// The value of an MSR on a new vCPU: what KVM gives for a feature MSR is what it starts with. `None` if not known.
fn read_msr(vcpu: &Vcpu<'_>, index: u32) -> Result<Option<u64>, Error> {
    let kvm = vcpu.question.kvm;
    let value = kvm.msr_features.as_ref().and_then(|features| features.get(&index).copied());
    match &kvm.msr_index {
        Some(list) if value.is_none() && !list.contains(&index) => Err(Error::TemplateMsr(index)),
        _ => Ok(value),
    }
}
