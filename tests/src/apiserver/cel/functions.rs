//! The functions that Kubernetes adds to CEL, as far as rules of custom resources use them.

use std::net::IpAddr;
use std::sync::Arc;

use cel::extractors::This;
use cel::objects::Opaque;
use cel::{Context, ExecutionError, Value};
use ipnet::IpNet;
use regex::Regex;

/// What rules may call, besides operators.
const KNOWN: &[&str] = &[
    // The language.
    "size",
    "matches",
    "startsWith",
    "endsWith",
    "contains",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "bytes",
    "dyn",
    "type",
    "duration",
    "timestamp",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "of",
    "none",
    "hasValue",
    "value",
    "orValue",
    "or",
    "optional.of",
    "optional.none",
    // Texts.
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "format",
    // Below.
    "isIP",
    "ip",
    "family",
    "isCIDR",
    "cidr",
    "containsIP",
    "containsCIDR",
    "prefixLength",
    "masked",
    "isURL",
    "find",
];

/// Whether it can be called; operators have names that no function can have.
pub(super) fn is_known(name: &str) -> bool {
    let operator = name.contains(|c: char| !c.is_alphanumeric() && c != '.');
    operator || KNOWN.contains(&name)
}

#[derive(Debug, PartialEq, Eq)]
struct Ip(IpAddr);

#[derive(Debug, PartialEq, Eq)]
struct Cidr(IpNet);

impl Opaque for Ip {
    fn runtime_type_name(&self) -> &'static str {
        "net.IP"
    }
}

impl Opaque for Cidr {
    fn runtime_type_name(&self) -> &'static str {
        "net.CIDR"
    }
}

/// Adds them.
pub(super) fn add(context: &mut Context<'_, '_>) {
    let added = [
        context.add_function("isIP", |text: Arc<String>| parse_ip(&text).is_some()),
        context.add_function("isCIDR", |text: Arc<String>| parse_cidr(&text).is_some()),
        context.add_function("isURL", |text: Arc<String>| is_url(&text)),
        context.add_function("ip", |This(this): This<Value>| {
            ip(&this).map(|ip| Value::Opaque(Arc::new(Ip(ip))))
        }),
        context.add_function("cidr", |This(this): This<Value>| {
            cidr(&this).map(|net| Value::Opaque(Arc::new(Cidr(net))))
        }),
        context.add_function("family", |This(this): This<Value>| {
            ip(&this).map(|ip| Value::Int(if ip.is_ipv4() { 4 } else { 6 }))
        }),
        context.add_function("prefixLength", |This(this): This<Value>| {
            cidr(&this).map(|net| Value::Int(i64::from(net.prefix_len())))
        }),
        context.add_function("masked", |This(this): This<Value>| {
            cidr(&this).map(|net| Value::Opaque(Arc::new(Cidr(net.trunc()))))
        }),
        context.add_function("containsIP", |This(this): This<Value>, other: Value| {
            Ok::<_, ExecutionError>(Value::Bool(cidr(&this)?.contains(&ip(&other)?)))
        }),
        context.add_function("containsCIDR", |This(this): This<Value>, other: Value| {
            Ok::<_, ExecutionError>(Value::Bool(cidr(&this)?.contains(&cidr(&other)?)))
        }),
        context.add_function("find", |This(this): This<Arc<String>>, pattern: Arc<String>| {
            let pattern = Regex::new(&pattern).map_err(|error| failed("find", &error.to_string()))?;
            Ok::<_, ExecutionError>(Value::from(
                pattern.find(&this).map(|found| found.as_str()).unwrap_or_default(),
            ))
        }),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "{added:?}");
}

fn failed(function: &str, message: &str) -> ExecutionError {
    ExecutionError::FunctionError { function: function.to_owned(), message: message.to_owned() }
}

/// An address in the one form that has no other.
fn parse_ip(text: &str) -> Option<IpAddr> {
    text.parse().ok().filter(|ip: &IpAddr| !matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()))
}

fn parse_cidr(text: &str) -> Option<IpNet> {
    text.contains('/').then(|| text.parse().ok()).flatten()
}

fn is_url(text: &str) -> bool {
    let absolute = text.parse::<http::Uri>().is_ok_and(|uri| uri.scheme().is_some() && uri.host().is_some());
    absolute || text.starts_with('/')
}

fn ip(value: &Value) -> Result<IpAddr, ExecutionError> {
    if let Value::String(text) = value {
        return parse_ip(text).ok_or_else(|| failed("ip", &format!("IP Address {text:?} parse error")));
    }
    let Value::Opaque(opaque) = value else { return Err(failed("ip", "not an address")) };
    let address = opaque.downcast_ref::<Ip>().map(|ip| ip.0);
    address
        .or_else(|| opaque.downcast_ref::<Cidr>().map(|cidr| cidr.0.addr()))
        .ok_or_else(|| failed("ip", "not an address"))
}

fn cidr(value: &Value) -> Result<IpNet, ExecutionError> {
    if let Value::String(text) = value {
        return parse_cidr(text)
            .ok_or_else(|| failed("cidr", &format!("network address parse error: {text:?}")));
    }
    let Value::Opaque(opaque) = value else { return Err(failed("cidr", "not a network")) };
    opaque.downcast_ref::<Cidr>().map(|cidr| cidr.0).ok_or_else(|| failed("cidr", "not a network"))
}
