//! What a page shows, whatever question it answers.

use crate::hosts::Hosts;
use crate::prices::Chart;
use crate::way::Ways;

/// A page: an answer, and everything that stands behind it.
#[derive(Clone, Debug)]
pub struct Page {
    /// The heading, and the name of the window.
    pub title: String,
    /// The answer, in a sentence.
    pub lead: String,
    /// A few numbers: how many, of what, and which of the page's colours tell it (`lost`, `gained`, `kept`, `plain`).
    pub figures: Vec<Figure>,
    /// What the answer is about: CPU, kernels, QEMU, `-cpu`.
    pub facts: Vec<(String, String)>,
    /// The features' ways through the sieves, or the hosts of a fleet.
    pub body: Body,
    /// What no input says and the answer rests on.
    pub assumed: Vec<Assumed>,
    /// What to know before the answer is believed, as sentences.
    pub doubts: Vec<String>,
    /// Whatever else an answer consists of: the first stands above the picture, the others below it.
    pub sheets: Vec<Sheet>,
    /// The answer as the verb's own JSON (format 1), and a name for the file.
    pub json: (String, String),
}

/// A number of a page.
#[derive(Clone, Debug)]
pub struct Figure {
    /// How many.
    pub count: usize,
    /// Of what.
    pub what: String,
    /// The colour.
    pub tone: Tone,
}

/// What a number's colour tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Something is missing.
    Lost,
    /// Something was added.
    Gained,
    /// Nothing changed.
    Kept,
    /// Neither good nor bad.
    Plain,
}

impl Tone {
    pub(crate) const fn class(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Gained => "gained",
            Self::Kept => "kept",
            Self::Plain => "plain",
        }
    }
}

/// A part of an answer that is a table, or text to be pasted.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Its heading.
    pub title: String,
    /// What to know before reading it; may be empty.
    pub hint: String,
    /// What it holds.
    pub holds: Holds,
}

/// What a sheet holds.
#[derive(Clone, Debug)]
pub enum Holds {
    /// A table: its columns' names, and rows of as many cells. Each row's first cell is its name.
    Table(Vec<String>, Vec<Vec<Mark>>),
    /// Texts to be pasted, each with what it is for.
    Pastes(Vec<(String, String)>),
}

/// A cell of a sheet.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its text.
    pub text: String,
    /// Whether that is good or bad news.
    pub tone: Tone,
}

/// The middle of a page.
#[derive(Clone, Debug)]
pub enum Body {
    /// Features on their way through the sieves.
    Ways(Ways),
    /// Many hosts.
    Hosts(Hosts),
    /// What features are worth.
    Chart(Chart),
}

/// Something that no input says and that the answer rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assumed {
    /// What.
    pub what: String,
    /// What was assumed.
    pub value: String,
    /// Why.
    pub because: String,
    /// What might have come out otherwise.
    pub hangs: Vec<String>,
    /// Of how many hosts of a fleet.
    pub hosts: Option<usize>,
}
