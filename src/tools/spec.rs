//! What there is to know about a tool before it is called: one table from which both the schema
//! and the reader of arguments come, so that they cannot differ.

use serde_json::{Map, Value, json};

/// A tool: what it is for, what it takes and what it answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// By which it is called.
    pub name: &'static str,
    /// What it is for, for the model that chooses.
    pub description: &'static str,
    /// JSON schema of the arguments.
    pub input_schema: Value,
    /// JSON schema of the answer.
    pub output_schema: Value,
    /// Whether a call can reach something beyond this host's records, such as a model elsewhere.
    pub open_world: bool,
}

/// What a value is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// A whole number from 1 to this.
    Number(u64),
    /// One of these words.
    Words(&'static [&'static str]),
}

impl Kind {
    pub(super) fn accepted(self) -> String {
        match self {
            Kind::Text => "a text; several values are separated by commas".to_owned(),
            Kind::Number(most) => format!("a whole number from 1 to {most}; 0 for the usual"),
            Kind::Words(words) => words.join(", "),
        }
    }

    /// Words are listed only where `listed`: each list costs a model in every conversation, and a
    /// wrong word is answered with the right ones.
    fn schema(self, listed: bool) -> Value {
        match self {
            Kind::Words(words) if listed => json!({"type": "string", "enum": words}),
            Kind::Text | Kind::Words(_) => json!({"type": "string"}),
            Kind::Number(_) => json!({"type": "integer"}),
        }
    }
}

/// A parameter. It has words of its own only where its name does not say all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Param {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    description: &'static str,
    required: bool,
    listed: bool,
}

pub(super) const fn text(name: &'static str) -> Param {
    Param { name, kind: Kind::Text, description: "", required: false, listed: true }
}

pub(super) const fn number(name: &'static str, most: u64) -> Param {
    Param { name, kind: Kind::Number(most), description: "", required: false, listed: true }
}

pub(super) const fn words(name: &'static str, words: &'static [&'static str]) -> Param {
    Param { name, kind: Kind::Words(words), description: "", required: false, listed: true }
}

impl Param {
    pub(super) const fn says(self, description: &'static str) -> Param {
        Param { description, ..self }
    }

    /// Its words are known from another tool.
    pub(super) const fn unlisted(self) -> Param {
        Param { listed: false, ..self }
    }

    pub(super) const fn required(self) -> Param {
        Param { required: true, ..self }
    }
}

/// A member of an answer: its name and JSON type.
pub(super) type Member = (&'static str, &'static str);

/// A tool as it is written down.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) params: &'static [Param],
    /// Members that every answer has, of those that tell most about it.
    pub(super) answers: &'static [Member],
}

impl Tool {
    pub(super) fn spec(&self, open_world: bool) -> Spec {
        let mut properties = Map::new();
        for param in self.params {
            let mut schema = param.kind.schema(param.listed);
            if !param.description.is_empty()
                && let Some(schema) = schema.as_object_mut()
            {
                schema.insert("description".to_owned(), param.description.into());
            }
            properties.insert(param.name.to_owned(), schema);
        }
        let mut input = json!({"type": "object", "properties": properties});
        let required: Vec<&str> =
            self.params.iter().filter(|param| param.required).map(|param| param.name).collect();
        input["additionalProperties"] = false.into();
        if !required.is_empty() {
            input["required"] = required.into();
        }
        let members = self.answers.iter();
        let members: Map<_, _> =
            members.map(|(name, kind)| ((*name).to_owned(), json!({"type": kind}))).collect();
        Spec {
            name: self.name,
            description: self.description,
            input_schema: input,
            output_schema: json!({"type": "object", "properties": members}),
            open_world,
        }
    }
}
