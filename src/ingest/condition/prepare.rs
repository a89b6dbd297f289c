//! Looks an expression through before it is used: names that do not exist are told of here and not
//! by the first delivery, and everything whose cost a payload decides is made to count its steps.

use cel::{
    IdedExpr,
    common::ast::{CallExpr, ComprehensionExpr, Expr, operators},
};

use super::{
    NAMES,
    steps::{AMONG, COUNTED, SAME},
};
use crate::domain::nearest::nearest;

/// What is wrong, and the number of the node.
pub(super) struct Wrong {
    pub(super) at: u64,
    pub(super) message: String,
}

/// Operations within operations: what is asked with each delivery recurses that often.
const DEPTH_MAX: usize = 100;

const TYPES: [&str; 11] =
    ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"];

const FUNCTIONS: [&str; 20] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "hasValue",
    "int",
    "lowerAscii",
    "none",
    "of",
    "ofNonZeroValue",
    "or",
    "orValue",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
    "value",
];

/// The namespace of `optional.of(…)`.
const OPTIONAL: &str = "optional";

/// Checks and rewrites. Tells which of [`NAMES`] the expression has.
pub(super) fn prepare(expression: &mut IdedExpr) -> Result<Vec<&'static str>, Wrong> {
    let mut walk = Walk { bound: Vec::new(), n_loops: 0, depth: 0, names: Vec::new() };
    walk.visit(expression)?;
    Ok(walk.names)
}

struct Walk {
    /// Names that the loops around give to their elements.
    bound: Vec<String>,
    n_loops: usize,
    depth: usize,
    names: Vec<&'static str>,
}

impl Walk {
    fn visit(&mut self, node: &mut IdedExpr) -> Result<(), Wrong> {
        if self.depth == DEPTH_MAX {
            let message = format!("holds more than {DEPTH_MAX} operations within each other");
            return Err(Wrong { at: node.id, message });
        }
        self.depth += 1;
        let seen = self.look(node);
        self.depth -= 1;
        seen
    }

    fn look(&mut self, node: &mut IdedExpr) -> Result<(), Wrong> {
        let at = node.id;
        match &mut node.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => self.name(at, name),
            Expr::Select(select) => self.visit(&mut select.operand),
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.visit(element)?;
                    self.count(element);
                }
                Ok(())
            }
            Expr::Map(_) | Expr::Struct(_) => {
                let message = "a map cannot be written here; compare its fields".to_owned();
                Err(Wrong { at, message })
            }
            Expr::Call(call) => {
                self.call(at, call)?;
                if call.func_name == operators::NOT_EQUALS {
                    let same = CallExpr { func_name: SAME.to_owned(), ..std::mem::take(call) };
                    node.expr = called(operators::LOGICAL_NOT, Expr::Call(same));
                }
                Ok(())
            }
            Expr::Comprehension(round) => self.round(round),
        }
    }

    fn name(&mut self, at: u64, name: &str) -> Result<(), Wrong> {
        if name.starts_with('@') || self.bound.iter().any(|it| it == name) {
            return Ok(());
        }
        // A leading dot is the outermost name in CEL.
        let name = name.trim_start_matches('.');
        if let Some(known) = NAMES.into_iter().find(|known| *known == name) {
            if !self.names.contains(&known) {
                self.names.push(known);
            }
            return Ok(());
        }
        if TYPES.contains(&name) {
            return Ok(());
        }
        let hint = match nearest(name, NAMES) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are {}", NAMES.join(", ")),
        };
        Err(Wrong { at, message: format!("`{name}` is not known: {hint}") })
    }

    fn call(&mut self, at: u64, call: &mut CallExpr) -> Result<(), Wrong> {
        let name = call.func_name.as_str();
        let is_operator = !name.starts_with(char::is_alphabetic);
        if !is_operator && !FUNCTIONS.contains(&name) {
            let hint = match nearest(name, FUNCTIONS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", FUNCTIONS.join(", ")),
            };
            return Err(Wrong { at, message: format!("there is no function `{name}`: {hint}") });
        }
        match &mut call.target {
            Some(target) if matches!(&target.expr, Expr::Ident(name) if name == OPTIONAL) => {}
            Some(target) => {
                self.visit(target)?;
                self.count(target);
            }
            None => {}
        }
        for arg in &mut call.args {
            self.visit(arg)?;
            self.count(arg);
        }
        match call.func_name.as_str() {
            operators::EQUALS => call.func_name = SAME.to_owned(),
            operators::IN => call.func_name = AMONG.to_owned(),
            _ => {}
        }
        Ok(())
    }

    /// A loop. What the library recognises it by stays as it is: its condition, its result, and
    /// where its step mentions the result.
    fn round(&mut self, round: &mut ComprehensionExpr) -> Result<(), Wrong> {
        self.visit(&mut round.iter_range)?;
        self.visit(&mut round.accu_init)?;
        let n_bound = self.bound.len();
        self.bound.push(round.iter_var.clone());
        self.bound.extend(round.iter_var2.clone());
        self.n_loops += 1;
        self.visit(&mut round.loop_step)?;
        self.n_loops -= 1;
        self.bound.truncate(n_bound);
        Ok(())
    }

    /// Makes a value count, where it may be large or be looked at often.
    fn count(&self, node: &mut IdedExpr) {
        let counts = match &node.expr {
            Expr::Ident(name) => !name.starts_with('@'),
            Expr::List(_) => false,
            Expr::Literal(_) => self.n_loops > 0,
            _ => true,
        };
        if counts {
            node.expr = called(COUNTED, std::mem::take(&mut node.expr));
        }
    }
}

fn called(function: &str, arg: Expr) -> Expr {
    let args = vec![IdedExpr { id: 0, expr: arg }];
    Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args })
}
