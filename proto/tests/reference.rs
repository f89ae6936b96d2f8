//! The reference part of `docs/protocol.md` is made from the comments of the protocol's files, and
//! this test holds the two together. With `UPDATE_GOLDENFILES=1` it writes the part anew.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};
use tidemark_types::ErrorCode;

const MARK: &str = "<!-- Made from proto/tidemark/v1: UPDATE_GOLDENFILES=1 cargo test --release -p tidemark-proto -->\n";

/// In the order in which a reader wants them.
const FILES: [(&str, &str); 11] = [
    ("gateway", "Frames"),
    ("entry", "Entries and pages"),
    ("act", "Acts"),
    ("presence", "Typing and presence"),
    ("group", "Groups"),
    ("id", "Ids and origins"),
    ("error", "Failures"),
    ("backend", "Calls of back ends"),
    ("feed", "The feed"),
    ("cluster", "Calls of operators"),
    ("hook", "Calls to an operator's hook"),
];

#[test]
fn the_reference_in_the_docs_is_the_protocol() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let document = fs::read_to_string(&path).expect("docs/protocol.md");
    let (prose, found) = document.split_once(MARK).expect("the mark of the reference");
    let wanted = format!("\n{}", reference());
    if found == wanted {
        return;
    }
    if env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(&path, format!("{prose}{MARK}{wanted}")).expect("writable");
        return;
    }
    let line = found.lines().zip(wanted.lines()).position(|(found, wanted)| found != wanted);
    panic!(
        "docs/protocol.md: line {line:?} of the reference differs from the protocol's files; \
         run this test with UPDATE_GOLDENFILES=1"
    );
}

/// `Deliver` is written by hand, so that its entries stay as they are encoded.
#[test]
fn a_deliver_has_the_fields_that_its_file_says() {
    let set =
        FileDescriptorSet::decode(tidemark_proto::FILE_DESCRIPTOR_SET).expect("it was encoded");
    let messages = set.file.iter().flat_map(|file| &file.message_type);
    let deliver = messages.filter(|message| message.name() == "Deliver");
    let fields: Vec<_> = deliver
        .flat_map(|deliver| &deliver.field)
        .map(|field| (field.name(), field.number(), field.r#type(), field.type_name()))
        .collect();
    let wanted = [
        ("epoch", 1, Type::Uint32, ""),
        ("prev_seq", 2, Type::Uint32, ""),
        ("entries", 3, Type::Message, ".tidemark.v1.Entry"),
    ];
    assert_eq!(fields, wanted, "proto/src/deliver.rs is to follow");
}

/// A name in backquotes in the prose that looks like a field's is one.
#[test]
fn the_prose_names_only_fields_that_exist() {
    let reference = reference();
    // What is between backquotes is every second part; blocks of code have three of them.
    let prose: String = prose().split("```").step_by(2).collect();
    for quoted in prose.split('`').skip(1).step_by(2) {
        let is_field = quoted.contains('_')
            && quoted.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(!is_field || reference.contains(&format!("`{quoted}`")), "`{quoted}`");
    }
}

#[test]
fn the_prose_gives_each_code_its_grpc_status() {
    let prose = prose();
    for code in ErrorCode::ALL {
        let status = format!("{:?}", tidemark_proto::status::grpc(*code));
        let row = |line: &&str| {
            line.split('|').nth(1).is_some_and(|cell| {
                cell.trim().replace(['`', '_'], "").eq_ignore_ascii_case(&status)
            })
        };
        let named = format!("`{}`", code.name());
        assert!(prose.lines().filter(row).any(|line| line.contains(&named)), "{code}: {status}");
    }
}

fn prose() -> &'static str {
    let (prose, _) = include_str!("../../docs/protocol.md").split_once(MARK).expect("the mark");
    prose
}

fn reference() -> String {
    let set = FileDescriptorSet::decode(tidemark_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let ours = set.file.iter().filter(|file| file.package() == "tidemark.v1").count();
    assert_eq!(ours, FILES.len(), "a file is missing in this test's list");
    let mut out = String::from("## 10. Reference\n");
    for (name, title) in FILES {
        let path = format!("tidemark/v1/{name}.proto");
        let file = set.file.iter().find(|file| file.name() == path).expect("a known file");
        let _ = write!(out, "\n### {title}\n");
        write_file(&mut out, file);
    }
    out
}

fn write_file(out: &mut String, file: &FileDescriptorProto) {
    for (at, service) in (0..).zip(&file.service) {
        write_service(out, file, at, service);
    }
    for (at, message) in (0..).zip(&file.message_type) {
        write_message(out, file, at, message);
    }
    for (at, kind) in (0..).zip(&file.enum_type) {
        // The codes have a page of their own, with what to do about each.
        if kind.name() != "ErrorCode" {
            write_enum(out, file, at, kind);
        }
    }
}

fn write_service(
    out: &mut String,
    file: &FileDescriptorProto,
    at: i32,
    service: &ServiceDescriptorProto,
) {
    let name = service.name();
    let _ = write!(out, "\n#### service {name}\n\n{}\n\n", comment(file, &[6, at]));
    let _ = write!(out, "| call | takes | gives | |\n|---|---|---|---|\n");
    for (nth, method) in (0..).zip(&service.method) {
        let stream = |streaming| if streaming { "stream of " } else { "" };
        let _ = writeln!(
            out,
            "| `{name}.{}` | {}`{}` | {}`{}` | {} |",
            method.name(),
            stream(method.client_streaming()),
            last_part(method.input_type()),
            stream(method.server_streaming()),
            last_part(method.output_type()),
            comment(file, &[6, at, 2, nth])
        );
    }
}

fn write_message(out: &mut String, file: &FileDescriptorProto, at: i32, message: &DescriptorProto) {
    assert!(message.nested_type.is_empty(), "{}: nested messages are not shown", message.name());
    let _ = write!(out, "\n#### {}\n\n{}\n", message.name(), comment(file, &[4, at]));
    if message.field.is_empty() {
        return;
    }
    let _ = write!(out, "\n| no. | field | type | |\n|---|---|---|---|\n");
    for (nth, field) in (0..).zip(&message.field) {
        let one_of = match field.oneof_index {
            None => String::new(),
            Some(index) => {
                let group = &message.oneof_decl[usize::try_from(index).expect("an index")];
                format!(" (one of `{}`)", group.name())
            }
        };
        let _ = writeln!(
            out,
            "| {} | `{}` | {}{one_of} | {} |",
            field.number(),
            field.name(),
            type_name(field),
            comment(file, &[4, at, 2, nth])
        );
    }
}

fn write_enum(out: &mut String, file: &FileDescriptorProto, at: i32, kind: &EnumDescriptorProto) {
    let _ = write!(out, "\n#### enum {}\n\n{}\n\n", kind.name(), comment(file, &[5, at]));
    let _ = write!(out, "| no. | name | |\n|---|---|---|\n");
    for (nth, value) in (0..).zip(&kind.value) {
        let text = comment(file, &[5, at, 2, nth]);
        let _ = writeln!(out, "| {} | `{}` | {text} |", value.number(), value.name());
    }
}

/// The comment before the element at this path of the descriptor; every element has one.
fn comment(file: &FileDescriptorProto, path: &[i32]) -> String {
    let info = file.source_code_info.as_ref().expect("built with comments");
    let location = info.location.iter().find(|location| location.path == path);
    let text = location.map(prost_types::source_code_info::Location::leading_comments);
    let text = text.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!text.is_empty(), "{}: {path:?} has no comment", file.name());
    text
}

fn type_name(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => format!("`{}`", last_part(field.type_name())),
        Type::Uint32 => "uint32".to_owned(),
        Type::Uint64 => "uint64".to_owned(),
        Type::String => "string".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Bool => "bool".to_owned(),
        other => panic!("{}: {other:?} is a type that this protocol does not use", field.name()),
    };
    match field.label() {
        Label::Repeated => format!("list of {name}"),
        Label::Optional | Label::Required => name,
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}
