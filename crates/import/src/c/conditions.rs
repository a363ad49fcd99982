//! Which `#if` conditions hold around a line, in the words of Kconfig.

use super::directive;

/// The nest of `#if` branches around a line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    /// One entry a nest level: the conditions of earlier branches, negated, and the present branch's own.
    levels: Vec<Level>,
}

#[derive(Clone, Debug)]
struct Level {
    /// The condition of the last branch that had one.
    condition: String,
    /// What holds in the present branch; none if nothing is said by it (an include guard).
    holds: Vec<String>,
}

impl Conditions {
    /// Looks at a line; only preprocessor lines change anything.
    pub(crate) fn step(&mut self, line: &str) {
        let Some((name, rest)) = directive(line) else { return };
        match name {
            "ifdef" => self.enter(kconfig(rest)),
            "ifndef" => self.enter(negated(&kconfig(rest))),
            "if" => self.enter(kconfig(rest)),
            "elif" => self.leave_branch(Some(kconfig(rest))),
            "else" => self.leave_branch(None),
            "endif" => drop(self.levels.pop()),
            _ => {}
        }
    }

    /// The conjunction of all conditions around the line; `y` if there are none.
    pub(crate) fn text(&self) -> String {
        let all: Vec<&str> = self.levels.iter().flat_map(|level| &level.holds).map(String::as_str).collect();
        if all.is_empty() {
            return "y".to_owned();
        }
        let lone = all.len() == 1;
        let part = |text: &&str| if text.contains("||") && !lone { format!("({text})") } else { (*text).to_owned() };
        all.iter().map(part).collect::<Vec<_>>().join(" && ")
    }

    fn enter(&mut self, condition: String) {
        // An include guard is no condition.
        let guard = condition.trim_start_matches('!').starts_with("_ASM_");
        let holds = if guard { Vec::new() } else { vec![condition.clone()] };
        self.levels.push(Level { condition, holds });
    }

    fn leave_branch(&mut self, next: Option<String>) {
        let Some(level) = self.levels.last_mut() else { return };
        level.holds.pop();
        level.holds.push(negated(&level.condition));
        if let Some(condition) = next {
            level.condition.clone_from(&condition);
            level.holds.push(condition);
        }
    }
}

/// `defined(CONFIG_A) || !defined(CONFIG_B)` as Kconfig says it: `A || !B`.
fn kconfig(text: &str) -> String {
    let mut out = text.trim().to_owned();
    for (from, to) in [("IS_ENABLED(", "("), ("defined (", "("), ("defined(", "("), ("defined ", ""), ("CONFIG_", "")] {
        out = out.replace(from, to);
    }
    // Parentheses around one word say nothing.
    let mut plain = String::with_capacity(out.len());
    let mut rest = out.as_str();
    while let Some((before, after)) = rest.split_once('(') {
        plain.push_str(before);
        match after.split_once(')') {
            Some((word, tail)) if word.chars().all(super::is_word) => {
                plain.push_str(word);
                rest = tail;
            }
            _ => {
                plain.push('(');
                rest = after;
            }
        }
    }
    plain.push_str(rest);
    plain
}

fn negated(condition: &str) -> String {
    match condition.strip_prefix('!') {
        Some(word) if word.chars().all(super::is_word) => word.to_owned(),
        _ if condition.chars().all(super::is_word) => format!("!{condition}"),
        _ => format!("!({condition})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &str) -> String {
        let mut conditions = Conditions::default();
        lines.lines().for_each(|line| conditions.step(line));
        conditions.text()
    }

    #[test]
    fn branches_are_named_as_kconfig_does() {
        assert_eq!(after("#ifndef _ASM_X86_H"), "y");
        assert_eq!(after("#ifdef CONFIG_A"), "A");
        assert_eq!(after("#ifndef CONFIG_A\n#else"), "A");
        assert_eq!(after("#ifdef CONFIG_A\n# ifdef CONFIG_B\n# else"), "A && !B");
        assert_eq!(after("#if defined(CONFIG_A) || defined(CONFIG_B)"), "A || B");
        assert_eq!(after("#if defined(CONFIG_A) || defined(CONFIG_B)\n#else"), "!(A || B)");
        assert_eq!(after("#if defined(CONFIG_A) || defined(CONFIG_B)\n#ifdef CONFIG_C"), "(A || B) && C");
        assert_eq!(after("#ifdef CONFIG_A\n#elif defined(CONFIG_B)"), "!A && B");
        assert_eq!(after("#ifdef CONFIG_A\n#elif defined(CONFIG_B)\n#else"), "!A && !B");
        assert_eq!(after("#ifdef CONFIG_A\n#endif\n#endif\n#else"), "y");
    }
}
