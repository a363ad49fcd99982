//! The questions cpusieve answers, read off the steps of the stages.
//!
//! Nothing is decided here: a stage decided, by a rule, and its [`cpusieve_model::Step`] says so. This crate chooses
//! between hypotheses by what fits the observation ([`diff`]), finds words for a step ([`reason`]), and looks names up.
//! It knows no effect and no format.
#![forbid(unsafe_code)]

pub mod diff;
pub mod guest;
pub mod name;
pub mod reason;
pub mod why;
