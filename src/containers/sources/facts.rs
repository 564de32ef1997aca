//! What a source says of a container, within bounds.

use std::collections::BTreeMap;
use std::collections::HashMap;

use crate::containers::Question;
use crate::event::Container;

/// The longest name of a container, a pod or a namespace; Kubernetes allows 253.
const NAME: usize = 256;
/// The longest image: registry, repository, tag and digest.
const IMAGE: usize = 512;
/// Labels of one container; those that come first in the order of their keys.
const LABELS: usize = 64;
const KEY: usize = 256;
const VALUE: usize = 1024;
/// Bytes of all labels of a container.
const LABELS_BYTES: usize = 16 * 1024;

/// What is known of a container.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    pub name: Option<String>,
    pub image: Option<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
    pub labels: BTreeMap<String, String>,
}

impl Facts {
    /// From what a runtime keeps, which for a container of a pod has labels of the kubelet.
    pub(super) fn of_runtime(
        name: Option<String>,
        image: Option<String>,
        labels: HashMap<String, String>,
    ) -> Self {
        let of_kubelet = |key: &str| labels.get(&format!("io.kubernetes.{key}")).cloned();
        Facts {
            name: of_kubelet("container.name").or(name),
            image,
            pod: of_kubelet("pod.name"),
            namespace: of_kubelet("pod.namespace"),
            labels: labels.into_iter().collect(),
        }
        .bounded()
    }

    /// What another source knows beyond.
    pub(super) fn or(self, other: Facts) -> Facts {
        let mut labels = other.labels;
        labels.extend(self.labels);
        Facts {
            name: self.name.or(other.name),
            image: self.image.or(other.image),
            pod: self.pod.or(other.pod),
            namespace: self.namespace.or(other.namespace),
            labels,
        }
        .bounded()
    }

    pub(super) fn bounded(self) -> Facts {
        let text = |text: Option<String>, most| {
            text.filter(|text| !text.is_empty()).map(|text| cut(&text, most))
        };
        let mut bytes = 0;
        let labels =
            self.labels.into_iter().map(|(key, value)| (cut(&key, KEY), cut(&value, VALUE)));
        let labels = labels.take(LABELS).take_while(|(key, value)| {
            bytes += key.len() + value.len();
            bytes <= LABELS_BYTES
        });
        Facts {
            name: text(self.name, NAME),
            image: text(self.image, IMAGE),
            pod: text(self.pod, NAME),
            namespace: text(self.namespace, NAME),
            labels: labels.collect(),
        }
    }

    /// The container that was asked about.
    pub(super) fn container(self, question: &Question) -> Container {
        Container {
            id: question.id.clone(),
            runtime: question.runtime.clone(),
            pod_uid: question.pod_uid.clone(),
            name: self.name,
            pod: self.pod,
            namespace: self.namespace,
            image: self.image,
            labels: self.labels,
        }
    }
}

/// At most so many bytes of a text, and a sign where there were more.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        // Without what it may have reserved.
        return text.to_owned();
    }
    let end = (0..=most - '…'.len_utf8()).rev().find(|end| text.is_char_boundary(*end));
    format!("{}…", &text[..end.unwrap_or(0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_of_a_pod_is_called_as_the_kubelet_calls_it() {
        let labels = [
            ("io.kubernetes.container.name", "app"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "prod"),
        ];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let facts = Facts::of_runtime(Some("k8s_app_web-0_prod_8f7c_0".to_owned()), None, labels);
        let told = [facts.name, facts.pod, facts.namespace];
        assert_eq!(told.map(Option::unwrap), ["app", "web-0", "prod"]);
    }

    #[test]
    fn what_a_source_says_is_bounded() {
        let labels = (0..1000).map(|n| (format!("{n:04}{}", "k".repeat(9000)), "ö".repeat(9000)));
        let long = || Some("é".repeat(5000));
        let facts = Facts::of_runtime(long(), long(), labels.collect());
        assert!(facts.name.as_ref().unwrap().len() <= NAME);
        assert!(facts.name.unwrap().ends_with("é…"));
        assert!(facts.image.unwrap().len() <= IMAGE);
        let bytes: usize = facts.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
        assert!(bytes <= LABELS_BYTES && facts.labels.len() > 10, "{bytes}");
        assert!(facts.labels.first_key_value().unwrap().0.starts_with("0000"));
    }

    #[test]
    fn what_is_empty_is_not_told() {
        let facts = Facts::of_runtime(Some(String::new()), Some(String::new()), HashMap::new());
        assert_eq!(facts, Facts::default());
    }

    #[test]
    fn sources_complete_each_other() {
        let text = |text: &str| Some(text.to_owned());
        let of_runtime = Facts { name: text("app"), ..Facts::default() };
        let of_kubelet = Facts { name: text("other"), pod: text("web-0"), ..Facts::default() };
        let both = of_runtime.or(of_kubelet);
        assert_eq!((both.name, both.pod), (text("app"), text("web-0")));
    }
}
