//! `cargo course`: what learners and instructors use beside the steps themselves.

mod advice;
mod base;
mod calibrate;
mod check;
mod doctor;
mod formats;
mod grade;
mod lab;
mod limits;
mod mounts;
mod namespaces;
mod new;
mod place;
mod progress;
mod sandbox;
mod show;
mod starter;
mod submission;
mod terminal;
mod trial;
mod watch;

use std::process::ExitCode;

use ::tests::programs;
use anyhow::Result;
use clap::{Parser, Subcommand};

/// Helps along the course: exercises, their checks, and a throw-away host to try things in.
#[derive(Parser)]
#[command(version, verbatim_doc_comment)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Doctor(doctor::Doctor),
    Lab(lab::Lab),
    Check(check::Check),
    Watch(watch::Watch),
    Hint(show::Hint),
    Diff(show::Diff),
    Solution(show::Solution),
    New(new::New),
    Grade(grade::Grade),
    Calibrate(calibrate::Calibrate),
    /// Tries one step of a submission: for grade
    #[command(hide = true)]
    TryStep,
    /// Says whether a control group can be had: for doctor
    #[command(hide = true)]
    TryGroup {
        name: String,
    },
    /// Builds the probe, for grade
    #[command(hide = true)]
    MakeProbe,
}

/// The program itself failed, and not what it looked at; the steps have the same.
const FAILED: u8 = 125;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(answer) => {
            let _ = answer.print();
            return ExitCode::from(if answer.use_stderr() { FAILED } else { 0 });
        }
    };
    run(args.verb).unwrap_or_else(|error| {
        eprintln!("course: {error:#}");
        ExitCode::from(FAILED)
    })
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Doctor(args) => doctor::examine(&args),
        Verb::TryGroup { name } => Ok(doctor::try_group(&name)),
        Verb::Lab(lab) => lab::enter(&lab),
        Verb::Check(check) => check::check(&check),
        Verb::Watch(watch) => watch::watch(&watch),
        Verb::Hint(hint) => show::hint(&hint),
        Verb::Diff(diff) => show::diff(&diff),
        Verb::Solution(solution) => show::solution(&solution),
        Verb::New(new) => new::make(&new),
        Verb::Grade(args) => grade::grade(&args),
        Verb::Calibrate(args) => calibrate::calibrate(&args),
        Verb::TryStep => trial::main(),
        Verb::MakeProbe => programs::make_probe().map(|()| ExitCode::SUCCESS),
    }
}
