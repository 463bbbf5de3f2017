//! Which gateway comes next.

/// The gateways of the mesh, tried in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    list: Vec<String>,
    at: usize,
}

impl Gateways {
    /// The gateways in the order in which they are tried.
    #[must_use]
    pub const fn new(list: Vec<String>) -> Self {
        Self { list, at: 0 }
    }

    /// The one to use now; `None` if none is known.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.list.get(self.at).map(String::as_str)
    }

    /// Moves on to the next. Returns whether all were tried since the last time this was true.
    pub const fn advance(&mut self) -> bool {
        self.at += 1;
        let all_tried = self.at >= self.list.len();
        if all_tried {
            self.at = 0;
        }
        all_tried
    }

    /// Takes a new list and stays with the current gateway if it is still there. An empty list changes nothing.
    pub fn replace(&mut self, list: &[String]) {
        if list.is_empty() || list == self.list {
            return;
        }
        let current = self.current().map(str::to_owned);
        self.at = current.and_then(|name| list.iter().position(|other| *other == name)).unwrap_or(0);
        self.list = list.to_vec();
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn every_gateway_gets_its_turn() {
        let mut gateways = Gateways::new(list(&["a", "b"]));
        assert_eq!(gateways.current(), Some("a"));
        assert!(!gateways.advance());
        assert_eq!(gateways.current(), Some("b"));
        assert!(gateways.advance());
        assert_eq!(gateways.current(), Some("a"));
    }

    #[test]
    fn a_new_list_keeps_the_current_one() {
        let mut gateways = Gateways::new(list(&["a", "b"]));
        let _all_tried = gateways.advance();
        gateways.replace(&list(&["c", "b", "d"]));
        assert_eq!(gateways.current(), Some("b"));
        gateways.replace(&list(&["e"]));
        assert_eq!(gateways.current(), Some("e"));
        gateways.replace(&[]);
        assert_eq!(gateways.current(), Some("e"));
        assert_eq!(Gateways::default().current(), None);
    }
}
