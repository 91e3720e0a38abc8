//! The calls that services got, and the faults that are to come.

/// The calls that services got, and the faults that are to come.
#[derive(Debug, Default)]
pub struct Calls {
    made: Vec<&'static str>,
    /// The name of a call, how often it goes well before, and the code of its error.
    faults: Vec<(&'static str, usize, &'static str)>,
}

impl Calls {
    /// Notes a call, and gives the fault that it meets.
    pub fn note(&mut self, name: &'static str) -> Option<&'static str> {
        self.made.push(name);
        let place = self.faults.iter().position(|(call, _, _)| *call == name)?;
        let (_, before, code) = &mut self.faults[place];
        let code = *code;
        if *before > 0 {
            *before -= 1;
            return None;
        }
        self.faults.remove(place);
        Some(code)
    }

    /// Lets a call fail with this code, after it went well so often. `Lost` is done and not answered.
    pub fn fail(&mut self, name: &'static str, before: usize, code: &'static str) {
        self.faults.push((name, before, code));
    }

    /// Returns the calls since they were last taken.
    pub fn take(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.made)
    }
}
