//! `report predict`: what each sieve makes of a CPU's features, as a page.

use cpusieve_answers::predict::way::{Route, guest_of, until_vcpu};
use cpusieve_answers::predict::{Assumption, Kernel, kvm as offer, predict};
use cpusieve_model::{Snapshot, Stage, Step};
use cpusieve_report::{Page, Predicted, of_prediction};

use super::{as_text, kvm, pass_through, stages, way};
use crate::args::{PredictOptions, VmmName};
use crate::input;
use crate::verbs::{Done, Failure};

/// The page, and how complete it is.
pub(in crate::verbs) fn page(options: &PredictOptions) -> Result<(Page, Done), Failure> {
    let (first, last) = stages(options.from, options.until)?;
    let (snapshot, unlisted) = input::read_for_boot(&options.input)?;
    let route = options.route.route(unlisted);
    let name = input::name(&options.input);
    let asked = Asked { options, snapshot: &snapshot, name: &name };
    match (first, last) {
        (_, Stage::Host) => asked.kernel(&route.kvm.kernel, Stage::Host),
        (Stage::Guest, _) => asked.kernel(&Kernel { unlisted, ..route.guest }, Stage::Guest),
        (_, Stage::Kvm) => asked.kvm(&route),
        _ if options.route.vmm != VmmName::Qemu => asked.pass_through(&route),
        _ => asked.way(&route, last),
    }
}

struct Asked<'a> {
    options: &'a PredictOptions,
    snapshot: &'a Snapshot,
    name: &'a str,
}

impl Asked<'_> {
    /// A prediction of which nothing but steps and assumptions is known.
    fn nothing<'p>(&'p self, until: Stage, steps: Vec<Step>, assumed: &'p [Assumption]) -> Predicted<'p> {
        Predicted {
            input: (self.name, self.snapshot),
            until,
            steps,
            host: None,
            guest: None,
            diff: None,
            vmm: String::new(),
            asked: None,
            assumed,
            doubts: Vec::new(),
        }
    }

    fn kernel(&self, kernel: &Kernel<'_>, stage: Stage) -> Result<(Page, Done), Failure> {
        let found = predict(self.snapshot, kernel).map_err(|refusal| format!("{}: {refusal}", self.name))?;
        let (host, guest) = if stage == Stage::Host { (Some(&found), None) } else { (None, Some(&found)) };
        let known = self.nothing(stage, found.boot.steps.clone(), &found.assumed);
        let page =
            of_prediction(&Predicted { host, guest, doubts: found.odd.clone(), ..known }, as_text(&found, stage));
        Ok((page, Done::Same))
    }

    fn kvm(&self, route: &Route<'_>) -> Result<(Page, Done), Failure> {
        let found = offer::predict(self.snapshot, &route.kvm).map_err(|refusal| format!("{}: {refusal}", self.name))?;
        let known = self.nothing(Stage::Kvm, steps(&found), &found.assumed);
        let page = of_prediction(
            &Predicted { host: Some(&found.host), doubts: doubts(&found), ..known },
            kvm::as_text(&found),
        );
        Ok((page, if found.view.supported.is_some() { Done::Same } else { Done::InPart }))
    }

    fn pass_through(&self, route: &Route<'_>) -> Result<(Page, Done), Failure> {
        let (vcpu, guest) = pass_through::found(self.options, self.snapshot, route)?;
        let of_guest = guest.iter().flat_map(|guest| &guest.boot.steps);
        let all = steps(&vcpu.kvm).into_iter().chain(vcpu.output.steps.iter().chain(of_guest).cloned()).collect();
        let until = if guest.is_some() { Stage::Guest } else { Stage::Vcpu };
        let known = self.nothing(until, all, guest.as_ref().map_or(&vcpu.assumed, |guest| &guest.assumed));
        let error = vcpu.output.error.as_ref().map(|error| format!("the guest does not start: {error}"));
        let warnings = vcpu.output.warnings.iter().cloned();
        let seen = Predicted {
            host: Some(&vcpu.kvm.host),
            guest: guest.as_ref(),
            vmm: format!("{} {}", vcpu.vmm.name(), vcpu.label()),
            doubts: error.into_iter().chain(warnings).chain(doubts(&vcpu.kvm)).collect(),
            ..known
        };
        let done = if vcpu.output.error.is_some() { Done::Different } else { Done::Same };
        Ok((of_prediction(&seen, pass_through::as_text(&vcpu, guest.as_ref())), done))
    }

    fn way(&self, route: &Route<'_>, last: Stage) -> Result<(Page, Done), Failure> {
        let refused = |refusal| format!("{}: {refusal}", self.name);
        let vcpu = until_vcpu(self.snapshot, route).map_err(refused)?;
        let (vmm, machine, cpu) = (way::release(&vcpu), vcpu.machine.name, vcpu.cpu.clone());
        let asked = Some((machine, cpu.as_str()));
        let error =
            vcpu.qemu.error.as_ref().map(|error| format!("QEMU ends instead of starting the guest: {}", error.message));
        let of_kvm = vcpu.kvm.iter().flat_map(doubts);
        let notes = error.into_iter().chain(vcpu.qemu.warnings.iter().cloned()).chain(of_kvm).collect::<Vec<_>>();
        let all = way::steps_until_vcpu(&vcpu);
        if last == Stage::Vcpu || vcpu.qemu.error.is_some() {
            let known = self.nothing(Stage::Vcpu, all, &vcpu.assumed);
            let host = vcpu.kvm.as_ref().map(|kvm| &kvm.host);
            let page = of_prediction(&Predicted { host, vmm, asked, doubts: notes, ..known }, way::vcpu_as_text(&vcpu));
            return Ok((page, if vcpu.qemu.error.is_some() { Done::Different } else { Done::Same }));
        }
        let found = guest_of(self.snapshot, route, vcpu).map_err(refused)?;
        let all = all.into_iter().chain(found.guest.boot.steps.iter().cloned()).collect();
        let diff = found.against_host(self.snapshot);
        let known = self.nothing(Stage::Guest, all, &found.guest.assumed);
        let seen = Predicted {
            host: found.vcpu.kvm.as_ref().map(|kvm| &kvm.host),
            guest: Some(&found.guest),
            diff: diff.as_ref(),
            vmm,
            asked,
            doubts: notes.into_iter().chain(found.guest.odd.iter().cloned()).collect(),
            ..known
        };
        Ok((of_prediction(&seen, way::guest_as_text(&found)), Done::Same))
    }
}

fn steps(found: &offer::KvmPrediction) -> Vec<Step> {
    found.host.boot.steps.iter().chain(&found.steps).cloned().collect()
}

fn doubts(found: &offer::KvmPrediction) -> Vec<String> {
    found.findings.iter().map(ToString::to_string).chain(found.host.odd.iter().cloned()).collect()
}
