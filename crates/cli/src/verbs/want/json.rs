//! The answer as JSON, format 1.

use cpusieve_answers::predict::way::{Accel, GuestPrediction};
use cpusieve_answers::want::change::Change;
use cpusieve_answers::want::{Answer, Hindrance, Settings, Solution, Wish};
use cpusieve_knowledge::{linux, qemu::RELEASES};
use serde_json::{Value, json};

use super::paste::Paste;
use crate::args::To;
use crate::json;
use crate::worth::Worths;

/// The whole answer.
pub(super) fn answer(answer: &Answer, wishes: &[Wish], worths: &Worths, to: To, pastes: &[Paste]) -> String {
    let ids = |present: bool| -> Vec<&str> {
        wishes.iter().filter(|wish| wish.present == present).map(|wish| wish.feature.id).collect()
    };
    let solutions = answer.solutions.iter().zip(pastes).map(|(one, paste)| solution(one, to, paste));
    let assumed = answer.start.guest.assumed.iter().map(|assumed| {
        json!({"what": assumed.what, "value": assumed.value, "because": assumed.because, "hangs": assumed.hangs})
    });
    json::pretty(&json!({
        "format": 1,
        "wanted": ids(true),
        "unwanted": ids(false),
        "granted": answer.nothing_to_do(),
        "unmet": answer.unmet.iter().map(|wish| wish.feature.id).collect::<Vec<_>>(),
        "start": settings(&answer.settings, &answer.start),
        "paste": answer.nothing_to_do().then(|| pastes.first().map(|one| paste(to, one))),
        "solutions": solutions.collect::<Vec<_>>(),
        "hindrances": answer.hindrances.iter().map(hindrance).collect::<Vec<_>>(),
        "doubted": answer.doubted,
        "ended_early": answer.ended_early,
        "tried": answer.tried,
        "price": worths.value(wishes.iter().map(|wish| wish.feature.id)),
        "assumed": assumed.collect::<Vec<_>>(),
    }))
}

fn solution(solution: &Solution, to: To, pasted: &Paste) -> Value {
    let price = &solution.price;
    json!({
        "cost": solution.cost,
        "disturbance": solution.disturbance.name(),
        "changes": solution.changes.iter().map(change).collect::<Vec<_>>(),
        "settings": settings(&solution.settings, &solution.guest),
        "loses": price.lost,
        "gains": price.gained,
        "migration": price.migration,
        "safety": price.safety,
        "notes": price.notes,
        "warnings": price.warnings,
        "supposed": solution.supposed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "paste": paste(to, pasted),
    })
}

fn change(change: &Change) -> Value {
    json!({"kind": change.name(), "text": change.to_string(), "cost": change.cost(),
        "disturbance": change.disturbance().name()})
}

fn paste(to: To, paste: &Paste) -> Value {
    let system = match to {
        To::Qemu => "qemu",
        To::Libvirt => "libvirt",
        To::Firecracker => "firecracker",
        To::Proxmox => "proxmox",
        To::Kubevirt => "kubevirt",
        To::Openstack => "openstack",
    };
    json!({"system": system, "text": paste.text, "beyond": paste.beyond, "note": paste.note, "possible": !paste.impossible})
}

/// The settings, with what was assumed in the place of what was not given.
fn settings(settings: &Settings, guest: &GuestPrediction) -> Value {
    let label = |tree: usize| linux::TREES.get(tree).map(|tree| tree.label);
    let params = settings.kvm_params.iter().map(|(name, value)| (name.clone(), json!(value)));
    json!({
        "accel": if settings.accel == Accel::Kvm { "kvm" } else { "tcg" },
        "qemu": RELEASES.get(guest.vcpu.release).map(|release| release.label),
        "machine": settings.machine.as_deref().unwrap_or(guest.vcpu.machine.name),
        "cpu": settings.cpu().to_string(),
        "smp": settings.smp,
        "cpu_pm": settings.cpu_pm,
        "host_kernel": guest.vcpu.kvm.as_ref().and_then(|kvm| label(kvm.host.tree)),
        "host_cmdline": settings.host_cmdline,
        "kvm_params": params.collect::<serde_json::Map<_, _>>(),
        "guest_kernel": label(guest.guest.tree),
        "guest_cmdline": settings.guest_cmdline,
    })
}

fn hindrance(hindrance: &Hindrance) -> Value {
    let reason = &hindrance.reason;
    json!({
        "flag": hindrance.wish.feature.id,
        "wanted": hindrance.wish.present,
        "at": hindrance.at.map(|stage| stage.name()),
        "needs": hindrance.needs,
        "rule": (!reason.rule.0.is_empty()).then_some(reason.rule.0),
        "cause": reason.cause,
        "cite": (!reason.cite.0.is_empty()).then_some(reason.cite.0),
        "generations": hindrance.generations,
        "remedy": json::remedy(&reason.remedy),
    })
}
