//! What a kernel tree says about the CPUID that KVM offers: which bits, which adjustments, which leaves.
//!
//! KVM's code had three shapes so far: constant masks inside the function that answers CPUID (up to 5.6), masks over a
//! copy of the kernel's own capabilities (5.7 to 6.13), and lists in which every feature names how it is offered (6.14
//! and later). All three are read into the same [`KvmFacts`].
//!
//! What is read is text: nothing is compiled, and no condition is evaluated. A condition stays the C expression that it
//! is in the source, with single blanks.

mod adjust;
mod caps;
mod leaves;
mod statements;
mod words;

use cpusieve_model::CpuidBit;

use crate::{SourceTree, c};
use statements::Statements;
use words::Words;

/// What one kernel tree says about the CPUID that KVM offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KvmFacts {
    /// The shape of the code.
    pub api: KvmApi,
    /// The bits that KVM can offer, in the order of their places.
    pub caps: Vec<KvmCap>,
    /// What is set and cleared afterwards, in the order of the source: common code, Intel, AMD, common code that runs
    /// last. Only one of the two vendor modules is ever asked.
    pub adjusts: Vec<KvmAdjust>,
    /// The limits on EAX of leaves that announce how far something goes.
    pub leaf_caps: Vec<LeafCap>,
    /// The features of leaf 40000001H, in the order of their bits.
    pub pv: Vec<PvFeature>,
    /// The leaves that have a `case` of their own, in ascending order.
    pub handled: Vec<u32>,
}

/// The shape of KVM's CPUID code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvmApi {
    /// Constant masks: a bit is offered if raw CPUID, the mask and the kernel have it (4.14 to 5.6).
    ConstMasks,
    /// `kvm_cpu_cap_mask()`: as before, but computed once when the module is loaded (5.7 to 6.13).
    CapMask,
    /// `kvm_cpu_cap_init()`: every feature says how it is offered (6.14 and later).
    CapInit,
}

/// A bit that KVM can offer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvmCap {
    /// Where it lives.
    pub place: CpuidBit,
    /// The macro without `X86_FEATURE_`.
    pub macro_name: String,
    /// How it is offered.
    pub kind: CapKind,
    /// The C condition under which it is in the mask; none if it always is.
    pub condition: Option<String>,
}

/// How a bit is offered. The formulas are those of `kvm_cpu_cap_init()`; `kernel` is the host kernel's capability,
/// `raw` the bit of the CPU that loaded the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapKind {
    /// `kernel & raw`.
    Plain,
    /// `kernel & raw`, on 64-bit kernels only.
    X86_64,
    /// `kernel & raw`, where Linux keeps the kernel's bit in a word of its own.
    Scattered,
    /// `raw`: Linux has no capability for it.
    Raw,
    /// `raw`, though Linux has a capability for it.
    Passthrough,
    /// Always: KVM emulates it.
    Emulated,
    /// `kernel`: Linux may have it without CPUID.
    Synthesized,
    /// Always: meant to be `kernel`, but these releases forgot to ask.
    SynthesizedUnconditional,
    /// `kernel & raw` of leaf 80000001H:EDX, for a bit that leaf 1 has too.
    Alias1Edx,
    /// Never by itself: an adjustment adds it. It stands in the list for the record (6.14 and later).
    Vendor,
    /// Never by itself: an adjustment adds it, and no list names it.
    AdjustOnly,
    /// Never: KVM sets it in the running guest.
    Runtime,
}

/// Something that is set or cleared after the masks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KvmAdjust {
    /// Whose code does it.
    pub site: AdjustSite,
    /// What it does.
    pub op: AdjustOp,
    /// The macro without `X86_FEATURE_`.
    pub macro_name: String,
    /// C conditions, all of which must hold, outermost first. Which leaf and subleaf is being answered is no condition.
    pub conditions: Vec<String>,
}

/// Whose code adjusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdjustSite {
    /// Common code, before the vendor module's.
    Common,
    /// `kvm_intel`.
    Intel,
    /// `kvm_amd`.
    Amd,
    /// Common code that the vendor module calls last.
    CommonLate,
}

/// What an adjustment does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdjustOp {
    /// The bit is offered.
    Set,
    /// The bit is not offered.
    Clear,
    /// The bit is offered if the host kernel has it.
    CheckAndSet,
    /// The bit is offered if raw CPUID and the mask have it, whatever the kernel says.
    SetFromRaw,
}

/// A limit on EAX of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeafCap {
    /// The leaf.
    pub leaf: u32,
    /// Which way.
    pub bound: Bound,
    /// The limit.
    pub value: u32,
}

/// Which way a limit works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bound {
    /// EAX is at most the value.
    AtMost,
    /// EAX is raised to the value at least, under a condition that the leaf's rule explains.
    AtLeast,
}

/// A feature of leaf 40000001H:EAX.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PvFeature {
    /// The bit.
    pub bit: u8,
    /// The macro without `KVM_FEATURE_`.
    pub name: String,
    /// The C condition under which it is offered; none if it always is.
    pub condition: Option<String>,
}

/// A tree that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KvmError {
    /// A file that every kernel has is missing.
    #[error("{0}: no such file in this tree; is it the root of a kernel source tree?")]
    MissingFile(String),
    /// Code that is not of a known shape.
    #[error("{file}:{line}: {what}")]
    Unexpected {
        /// The file, relative to the root of the tree.
        file: String,
        /// The line, from 1; 0 if the whole file is meant.
        line: usize,
        /// What was found, and what was expected.
        what: String,
    },
}

impl KvmFacts {
    /// Reads the facts out of a kernel tree.
    ///
    /// # Errors
    /// A file that is missing, or code that is not of one of the three known shapes.
    ///
    /// ```
    /// let empty = |_: &str| None;
    /// assert!(cpusieve_import::kvm::KvmFacts::read(&empty).is_err());
    /// ```
    pub fn read(tree: &dyn SourceTree) -> Result<Self, KvmError> {
        let source = Source::read(tree)?;
        let (caps, adjusts) = match source.api {
            KvmApi::ConstMasks => {
                let caps = caps::const_masks(&source)?;
                (caps, adjust::const_masks(&source)?)
            }
            KvmApi::CapMask | KvmApi::CapInit => {
                let caps = caps::cap_lists(&source)?;
                (caps, adjust::cap_calls(&source)?)
            }
        };
        let mut caps = caps::with_adjusted(caps, &adjusts, &source)?;
        caps.extend(leaves::constant_caps(&source)?);
        caps.sort();
        caps.dedup();
        Ok(Self {
            api: source.api,
            caps,
            adjusts: adjusts.into_iter().map(|found| found.adjust).collect(),
            leaf_caps: leaves::limits(&source)?,
            pv: leaves::pv_features(&source)?,
            handled: leaves::handled(&source)?,
        })
    }
}

/// The parts of a tree that matter, without comments.
struct Source {
    api: KvmApi,
    /// `cpuid.c`.
    cpuid: File,
    /// Intel's module.
    vmx: File,
    /// AMD's module, one or two files.
    svm: Vec<File>,
    /// `x86.c`.
    x86: File,
    /// Numbers of the paravirtual features.
    para: File,
    words: Words,
}

/// One file, without comments.
struct File {
    path: String,
    code: String,
}

impl Source {
    fn read(tree: &dyn SourceTree) -> Result<Self, KvmError> {
        let cpuid = File::read(tree, &["arch/x86/kvm/cpuid.c"])?;
        let api = if cpuid.code.contains("kvm_cpu_cap_init(CPUID_") {
            KvmApi::CapInit
        } else if cpuid.code.contains("kvm_cpu_cap_mask(CPUID_") {
            KvmApi::CapMask
        } else if cpuid.code.contains("_x86_features =") {
            KvmApi::ConstMasks
        } else {
            return Err(cpuid.unexpected(0, "no list of features of any known shape".to_owned()));
        };
        let svm = File::read(tree, &["arch/x86/kvm/svm/svm.c", "arch/x86/kvm/svm.c"])?;
        let sev = File::read(tree, &["arch/x86/kvm/svm/sev.c"]).ok();
        Ok(Self {
            api,
            cpuid,
            vmx: File::read(tree, &["arch/x86/kvm/vmx/vmx.c", "arch/x86/kvm/vmx.c"])?,
            svm: std::iter::once(svm).chain(sev).collect(),
            x86: File::read(tree, &["arch/x86/kvm/x86.c"])?,
            para: File::read(tree, &["arch/x86/include/uapi/asm/kvm_para.h"])?,
            words: Words::read(tree)?,
        })
    }

    /// The function that answers one leaf, whatever its name is in this release.
    fn answering(&self) -> Result<Statements, KvmError> {
        let names = ["__do_cpuid_func", "__do_cpuid_ent"];
        let found = names.iter().find_map(|name| self.cpuid.function(name).transpose());
        found.ok_or_else(|| self.cpuid.unexpected(0, format!("none of the functions {}", names.join(", "))))?
    }
}

impl File {
    /// The first of `paths` that the tree has.
    fn read(tree: &dyn SourceTree, paths: &[&str]) -> Result<Self, KvmError> {
        let found = paths.iter().find_map(|path| tree.read(path).map(|text| (*path, text)));
        let (path, text) =
            found.ok_or_else(|| KvmError::MissingFile(paths.first().copied().unwrap_or("").to_owned()))?;
        Ok(Self { path: path.to_owned(), code: c::without_comments(&text) })
    }

    /// The statements of the function called `name`, or none if the file does not define it.
    fn function(&self, name: &str) -> Result<Option<Statements>, KvmError> {
        let Some((start, end)) = statements::function_body(&self.code, name) else { return Ok(None) };
        self.statements(start, end).map(Some)
    }

    /// The statements between two positions.
    fn statements(&self, start: usize, end: usize) -> Result<Statements, KvmError> {
        Statements::parse(&self.code, start, end)
            .map_err(|position| self.unexpected(line_of(&self.code, position), "statements that do not end".to_owned()))
    }

    fn unexpected(&self, line: usize, what: String) -> KvmError {
        KvmError::Unexpected { file: self.path.clone(), line, what }
    }
}

/// The line, from 1, of a position.
fn line_of(code: &str, position: usize) -> usize {
    code.bytes().take(position).filter(|&byte| byte == b'\n').count() + 1
}
