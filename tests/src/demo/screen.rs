//! What the spectator sees: scenes, commands with their answers, and the table of expectations at the end.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;

use crate::command::Answer;

/// The screen.
#[derive(Debug)]
pub(super) struct Screen {
    colour: bool,
    scene: u32,
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    expectation: String,
    outcome: Outcome,
    result: String,
}

/// What came of an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Met,
    /// It holds, and took longer than it should: told, and no failure, since a busy machine makes everything slow.
    Slow,
    Missed,
}

#[derive(Clone, Copy, Debug)]
enum Ink {
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { colour: std::io::stdout().is_terminal(), scene: 0, rows: Vec::new() }
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        let code = match ink {
            Ink::Bold => 1,
            Ink::Dim => 2,
            Ink::Green => 32,
            Ink::Yellow => 33,
            Ink::Red => 31,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Begins a scene.
    pub(super) fn scene(&mut self, title: &str) {
        self.scene += 1;
        println!("\n{}", self.ink(Ink::Bold, &format!("{}. {title}", self.scene)));
    }

    /// A sentence of the narrator.
    pub(super) fn say(&self, text: &str) {
        println!("   {}", self.ink(Ink::Dim, text));
    }

    /// A command line as it was typed on a machine.
    pub(super) fn typed(&self, line: &str) {
        println!("   {}", self.ink(Ink::Bold, line));
    }

    /// A command and its answer.
    pub(super) fn show(&self, answer: &Answer) {
        self.typed(&answer.line);
        Self::output(&answer.said());
        match answer.code {
            Some(0) => {}
            Some(code) => println!("   {}", self.ink(Ink::Dim, &format!("(exit code {code})"))),
            None => println!("   {}", self.ink(Ink::Dim, "(ended by a signal)")),
        }
    }

    /// Output of a command.
    pub(super) fn output(text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Records an expectation and what came of it.
    pub(super) fn expect(&mut self, expectation: &str, met: bool, result: &str) {
        self.record(expectation, if met { Outcome::Met } else { Outcome::Missed }, result);
    }

    /// Records a time that was measured and the one it should stay below.
    pub(super) fn timed(&mut self, expectation: &str, took: Duration, limit: Duration, result: &str) {
        let outcome = if took < limit { Outcome::Met } else { Outcome::Slow };
        self.record(&format!("{expectation} within {limit:?}"), outcome, result);
    }

    fn record(&mut self, expectation: &str, outcome: Outcome, result: &str) {
        println!("   {} {expectation}: {result}", self.mark(outcome));
        self.rows.push(Row { expectation: expectation.to_owned(), outcome, result: result.to_owned() });
    }

    fn mark(&self, outcome: Outcome) -> String {
        match outcome {
            Outcome::Met => self.ink(Ink::Green, "✓"),
            Outcome::Slow => self.ink(Ink::Yellow, "!"),
            Outcome::Missed => self.ink(Ink::Red, "✗"),
        }
    }

    /// Runs a scene; a failure in it is an expectation that was not met.
    pub(super) fn play(&mut self, title: &str, scene: impl FnOnce(&mut Self) -> Result<()>) {
        self.scene(title);
        if let Err(error) = scene(self) {
            let text = format!("{error:#}");
            self.expect(title, false, text.lines().next().unwrap_or_default());
            Self::output(&text);
        }
    }

    /// Prints the table; whether every expectation was met.
    pub(super) fn table(&self, took: Duration) -> bool {
        let width = self.rows.iter().map(|row| row.expectation.chars().count()).max().unwrap_or_default();
        println!("\n{}", self.ink(Ink::Bold, &format!("   {:width$}   result", "expectation")));
        for row in &self.rows {
            println!(" {} {:width$}   {}", self.mark(row.outcome), row.expectation, row.result);
        }
        let count = |outcome| self.rows.iter().filter(|row| row.outcome == outcome).count();
        let (failed, slow) = (count(Outcome::Missed), count(Outcome::Slow));
        let seconds = took.as_secs_f64();
        match failed {
            0 => println!("\nAll {} expectations met in {seconds:.1} s.", self.rows.len()),
            _ => println!("\n{failed} of {} expectations not met ({seconds:.1} s).", self.rows.len()),
        }
        if slow > 0 {
            println!("{slow} took longer than they should (!): is the machine busy with something else?");
        }
        failed == 0
    }
}
