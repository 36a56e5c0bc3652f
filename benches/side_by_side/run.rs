//! Runs one program and measures it.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What one run took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Seconds by the clock.
    pub wall: f64,
    /// Seconds of all cores, user and system.
    pub cpu: f64,
}

fn spawn(argv: &[&str]) -> Result<Child, String> {
    let (program, args) = argv.split_first().ok_or("nothing to run")?;
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{program}: {e}"))
}

fn wait(mut child: Child, argv: &[&str]) -> Result<(), String> {
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} ended with {status}", argv.join(" ")))
    }
}

/// Runs `argv` and fails unless it succeeds.
pub fn quiet(argv: &[&str]) -> Result<(), String> {
    let mut child = spawn(argv)?;
    drain(&mut child)?;
    wait(child, argv)
}

/// Waits until the file system of `path` has nothing left to write.
pub fn settle(path: &str) -> Result<(), String> {
    quiet(&["sync", "-f", path])
}

/// Runs `argv` with `input` on its standard input, and fails unless it succeeds.
pub fn fed(argv: &[&str], input: Vec<u8>) -> Result<(), String> {
    let (program, args) = argv.split_first().ok_or("nothing to run")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|e| format!("{program}: {e}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(&input)
            .map_err(|e| format!("{program}: {e}"))?;
    }
    wait(child, argv)
}

/// Reads the program's output to its end, which comes when the program ends.
fn drain(child: &mut Child) -> Result<(), String> {
    let mut output = Vec::new();
    if let Some(pipe) = child.stdout.as_mut() {
        pipe.read_to_end(&mut output).map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Runs `argv` and measures time.
pub fn timed(argv: &[&str]) -> Result<Cost, String> {
    let start = Instant::now();
    let mut child = spawn(argv)?;
    drain(&mut child)?;
    // The output has ended; the process is over in a moment and keeps its counters until waited for.
    let ticks = loop {
        let (state, ticks) = stat(child.id())?;
        if state == 'Z' {
            break ticks;
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    let wall = start.elapsed().as_secs_f64();
    wait(child, argv)?;
    Ok(Cost {
        wall,
        cpu: ticks as f64 / 100.0,
    })
}

/// State, and user and system time in ticks of 10 ms, with that of processes that it has waited for.
fn stat(pid: u32) -> Result<(char, u64), String> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
    let after_name = text.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    let state = fields.first().and_then(|f| f.chars().next());
    let ticks: Option<u64> = (11..15).map(number).sum();
    match (state, ticks) {
        (Some(state), Some(ticks)) => Ok((state, ticks)),
        _ => Err(format!("{path}: cannot be understood")),
    }
}

/// Runs `argv` and gives its peak resident memory in KiB, seen every two milliseconds.
pub fn peak(argv: &[&str]) -> Result<u64, String> {
    let mut child = spawn(argv)?;
    let pid = child.id();
    let status = format!("/proc/{pid}/status");
    let mut peak = 0;
    // The memory is gone from the status once the program has ended.
    while let Ok(text) = std::fs::read_to_string(&status) {
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        match line.and_then(|rest| rest.split_whitespace().next()) {
            Some(kib) => peak = peak.max(kib.parse().unwrap_or(0)),
            None if peak > 0 => break,
            None => {}
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    drain(&mut child)?;
    wait(child, argv)?;
    Ok(peak)
}
