//! Selectors over identity labels. A Kubernetes `LabelSelector` becomes one by [`LabelSelector::compile`]: its keys
//! are those of an object or of its namespace, and become full `source:key` names there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use crate::labels::{self, InvalidLabel, Labels};

#[cfg(test)]
mod tests;

/// A conjunction of requirements; without any it matches every label set, reserved identities included.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(BTreeSet<Requirement>);

/// One requirement: about the label named `source:key`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    label: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Test {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

/// Kubernetes' `metav1.LabelSelector`, as it stands in manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels that must have exactly these values.
    pub match_labels: Option<BTreeMap<String, String>>,
    /// Further requirements.
    pub match_expressions: Option<Vec<LabelSelectorRequirement>>,
}

/// Kubernetes' `metav1.LabelSelectorRequirement`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelSelectorRequirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what; only for `In` and `NotIn`.
    pub values: Option<Vec<String>>,
}

/// Kubernetes' `metav1.LabelSelectorOperator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Operator {
    /// The label is there with one of the values.
    In,
    /// The label is absent, or has another value.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

/// What is wrong with one field of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// Where: `spec.ingress[0].from[1].podSelector`.
    pub path: String,
    /// What, with the value.
    pub message: String,
}

impl FieldError {
    /// Names a field and what is wrong with it.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl LabelSelector {
    /// Checks the selector, which stands at `path`, and turns it into one over identity labels. `prefix` is
    /// [`labels::OBJECT_PREFIX`] or [`labels::NAMESPACE_LABEL_PREFIX`]. Everything wrong is added to `errors`; the
    /// selector that is returned then must not be used.
    pub fn compile(&self, prefix: &str, path: &str, errors: &mut Vec<FieldError>) -> Selector {
        self.compile_by(&|key| labels::check_key(key).map(|()| format!("{prefix}{key}")), path, errors)
    }

    /// The same where `name` gives the `source:key` of a key, or says what is wrong with it.
    pub(crate) fn compile_by(
        &self,
        name: &dyn Fn(&str) -> Result<String, InvalidLabel>,
        path: &str,
        errors: &mut Vec<FieldError>,
    ) -> Selector {
        let mut selector = Selector::default();
        for (key, value) in self.match_labels.iter().flatten() {
            let path = format!("{path}.matchLabels[{key}]");
            errors.extend(labels::check_value(value).err().map(|e| FieldError::new(&path, e.to_string())));
            match name(key) {
                Ok(label) => drop(selector.0.insert(Requirement::is(label, value))),
                Err(error) => errors.push(FieldError::new(&path, error.to_string())),
            }
        }
        for (index, expression) in self.match_expressions.iter().flatten().enumerate() {
            let path = format!("{path}.matchExpressions[{index}]");
            errors.extend(expression.check(&path));
            match name(&expression.key) {
                Ok(label) => drop(selector.0.insert(expression.compile(label))),
                Err(error) => errors.push(FieldError::new(format!("{path}.key"), error.to_string())),
            }
        }
        selector
    }

    /// What is left of a selector of peers where the identities of pods lack some labels; `None`: it chooses nobody. That
    /// such a label be absent would allow every pod, and so allows none. What denies is looked at without them: it may
    /// deny more than it says, and never less.
    pub(crate) fn of_visible(&self, is_lacking: &dyn Fn(&str) -> bool, denies: bool) -> Option<Self> {
        let mut expressions = self.match_expressions.iter().flatten();
        if !denies {
            let is_negative = expressions.any(|found| found.is_negative() && is_lacking(&found.key));
            return (!is_negative).then(|| self.clone());
        }
        let mut visible = self.clone();
        visible.match_labels.iter_mut().for_each(|labels| labels.retain(|key, _| !is_lacking(key)));
        visible.match_expressions.iter_mut().for_each(|all| all.retain(|found| !is_lacking(&found.key)));
        Some(visible)
    }

    /// What a user is told about a label that the identities of pods lack.
    pub(crate) fn lacking(key: &str, denies: bool) -> String {
        let what = if denies { "it is left out of the peer" } else { "the peer matches no pod" };
        format!("label {key:?} takes no part in identities: {what}")
    }

    /// The keys the selector names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let labels = self.match_labels.iter().flat_map(BTreeMap::keys).map(String::as_str);
        labels.chain(self.match_expressions.iter().flatten().map(|expression| expression.key.as_str()))
    }
}

impl LabelSelectorRequirement {
    fn check(&self, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let values = self.values.as_deref().unwrap_or_default();
        match self.operator {
            Operator::In | Operator::NotIn if values.is_empty() => errors.push(FieldError::new(
                format!("{path}.values"),
                format!("operator {:?} needs at least one value", self.operator),
            )),
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => errors.push(FieldError::new(
                format!("{path}.values"),
                format!("operator {:?} takes no values, got {values:?}", self.operator),
            )),
            Operator::In | Operator::NotIn | Operator::Exists | Operator::DoesNotExist => {}
        }
        for (index, value) in values.iter().enumerate() {
            if let Err(error) = labels::check_value(value) {
                errors.push(FieldError::new(format!("{path}.values[{index}]"), error.to_string()));
            }
        }
        errors
    }

    fn compile(&self, label: String) -> Requirement {
        let values = || self.values.iter().flatten().cloned().collect();
        let test = match self.operator {
            Operator::In => Test::In(values()),
            Operator::NotIn => Test::NotIn(values()),
            Operator::Exists => Test::Exists,
            Operator::DoesNotExist => Test::DoesNotExist,
        };
        Requirement { label, test }
    }

    /// Whether an absent label fulfils the requirement.
    #[must_use]
    pub fn is_negative(&self) -> bool {
        matches!(self.operator, Operator::NotIn | Operator::DoesNotExist)
    }
}

impl Requirement {
    /// The label named `source:key` has this value.
    #[must_use]
    pub fn is(label: impl Into<String>, value: &str) -> Self {
        Self { label: label.into(), test: Test::In(BTreeSet::from([value.to_owned()])) }
    }

    /// The label named `source:key` is there.
    #[must_use]
    pub fn exists(label: impl Into<String>) -> Self {
        Self { label: label.into(), test: Test::Exists }
    }

    /// The label named `source:key` is not there.
    #[must_use]
    pub fn absent(label: impl Into<String>) -> Self {
        Self { label: label.into(), test: Test::DoesNotExist }
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.0.get(&self.label);
        let is_fulfilled = match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        };
        // What cannot be read fulfils nothing: neither that a label is there, nor that it is not.
        is_fulfilled && !labels.may_have(&self.label)
    }
}

impl Selector {
    /// The selector with one more requirement.
    #[must_use]
    pub fn and(mut self, requirement: Requirement) -> Self {
        self.0.insert(requirement);
        self
    }

    /// The selector with the requirements of another one too.
    #[must_use]
    pub fn and_all(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Labels that have to have one of these values.
    pub(crate) fn demands(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.0.iter().filter_map(|Requirement { label, test }| match test {
            Test::In(values) => Some((label.as_str(), values)),
            Test::NotIn(_) | Test::Exists | Test::DoesNotExist => None,
        })
    }

    /// The same without labels that it may be unknown whether one has.
    pub(crate) fn demands_of_readable(&self) -> impl Iterator<Item = (&str, &BTreeSet<String>)> {
        self.demands().filter(|(label, _)| !label.starts_with(labels::NAMESPACE_LABEL_PREFIX))
    }

    /// The labels it is about, as `source:key`.
    pub(crate) fn labels(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|requirement| requirement.label.as_str())
    }

    /// Those of them that have to be there.
    pub(crate) fn wanted(&self) -> impl Iterator<Item = &str> {
        let wanted = self.0.iter().filter(|found| matches!(found.test, Test::In(_) | Test::Exists));
        wanted.map(|requirement| requirement.label.as_str())
    }

    /// Whether the labels fulfil every requirement that is about labels that can be read.
    #[must_use]
    pub fn may_match(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| labels.may_have(&requirement.label) || requirement.matches(labels))
    }

    /// Whether the labels fulfil every requirement.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("everything");
        }
        for (index, requirement) in self.0.iter().enumerate() {
            let label = &requirement.label;
            f.write_str(if index == 0 { "" } else { "," })?;
            match &requirement.test {
                Test::In(values) => write!(f, "{label} in {values:?}"),
                Test::NotIn(values) => write!(f, "{label} not in {values:?}"),
                Test::Exists => write!(f, "{label}"),
                Test::DoesNotExist => write!(f, "!{label}"),
            }?;
        }
        Ok(())
    }
}
