//! `make demo`: a cluster node with a gateway and two pods, two hosts that join, and what the policy makes of their
//! traffic; each step with the command it runs and the real answer.

mod screen;
mod stage;
mod story;

use std::time::Instant;

use anyhow::Result;

use self::screen::Screen;
use self::stage::Stage;

/// Plays the demo; `true` if every expectation was met. With `keep` it then leaves everything running until a
/// signal ends it.
pub fn run(keep: bool) -> Result<bool> {
    let started = Instant::now();
    let mut screen = Screen::new();
    let mut stage = Stage::try_new(&mut screen)?;
    story::play(&mut stage, &mut screen);
    let met = screen.table(started.elapsed());
    if keep {
        stage.hints()?;
        loop {
            std::thread::park();
        }
    }
    Ok(met)
}
