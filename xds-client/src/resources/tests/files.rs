//! What files bring, as a script: what was read, what is to be read, and what may be used of it.

use super::*;
use crate::{
    source::{FILES_MAX, FileSource, OfFile},
    subscription::MISSING_AFTER,
};

fn file(path: &str) -> FileSource {
    FileSource {
        path: path.into(),
        watched_directory: None,
    }
}

fn of(resource_type: ResourceType, path: &str) -> OfFile {
    OfFile {
        resource_type,
        file: file(path),
    }
}

/// A cluster whose endpoints are in a file.
fn cluster_of(name: &str, path: &str) -> RawResource {
    let source = json!({ "eds_config": { "path_config_source": { "path": path } } });
    raw(
        ResourceType::Cluster,
        "",
        json!({ "name": name, "type": "EDS", "eds_cluster_config": source }),
    )
}

/// Endpoints as a file has them, with one at this port.
fn endpoints_at(name: &str, port: u16) -> RawResource {
    let socket = json!({ "address": "10.0.0.1", "port_value": port });
    let one = json!({ "endpoint": { "address": { "socket_address": socket } } });
    raw(
        ResourceType::Endpoint,
        "",
        json!({ "cluster_name": name, "endpoints": [{ "lb_endpoints": [one] }] }),
    )
}

fn content(resources: Vec<RawResource>) -> Result<RawResponse, String> {
    Ok(RawResponse {
        resources,
        ..RawResponse::default()
    })
}

/// The ports of a cluster's endpoints, if it may be used.
fn ports(resources: &mut Resources, cluster: &str) -> Option<Vec<u16>> {
    resources.poll(NOW);
    let found = resources.graph.active().clusters.get(cluster)?;
    let tidegate_core::config::model::Endpoints::Static(all) = &found.endpoints else {
        unreachable!()
    };
    Some(all.iter().map(|one| one.address.port()).collect())
}

/// Goal: clusters of a file with their endpoints in another are used, change with it, and go with it; each file is
/// read when it is first named. Method: a script without a stream.
#[test]
fn files_bring_everything() {
    let mut resources = Resources::new(Variant::StateOfTheWorld, Arc::default());
    let (cds, eds) = (
        of(ResourceType::Cluster, "/cds.yaml"),
        of(ResourceType::Endpoint, "/eds.yaml"),
    );
    resources.take_from(cds.clone());
    resources.without_stream();
    assert_eq!(resources.files_due(), std::slice::from_ref(&cds));
    assert!(resources.files_due().is_empty());
    resources.receive_file(&cds, content(vec![cluster_of("a", "/eds.yaml")]), NOW);
    assert_eq!(resources.files_due(), std::slice::from_ref(&eds));
    assert_eq!(ports(&mut resources, "a"), None, "it waits for its file");
    resources.receive_file(&eds, content(vec![endpoints_at("a", 1)]), NOW);
    assert_eq!(ports(&mut resources, "a"), Some(vec![1]));
    resources.receive_file(&eds, content(vec![endpoints_at("a", 2)]), NOW);
    assert_eq!(ports(&mut resources, "a"), Some(vec![2]));
    assert_eq!(resources.poll_request(NOW), None, "nobody is asked");

    // A name that the file may have held already.
    let both = vec![cluster_of("a", "/eds.yaml"), cluster_of("b", "/eds.yaml")];
    resources.receive_file(&cds, content(both), NOW);
    assert_eq!(resources.files_due(), std::slice::from_ref(&eds));
    resources.receive_file(
        &eds,
        content(vec![endpoints_at("a", 2), endpoints_at("b", 3)]),
        NOW,
    );
    assert_eq!(ports(&mut resources, "b"), Some(vec![3]));

    resources.receive_file(&cds, content(vec![cluster_of("b", "/eds.yaml")]), NOW);
    assert_eq!(ports(&mut resources, "a"), None);
    resources.receive_file(&cds, content(vec![]), NOW);
    assert_eq!(ports(&mut resources, "b"), None);
    assert_eq!(resources.files().collect::<Vec<_>>(), [&cds]);
    let status = resources.status();
    assert!(status[1].resources.is_empty(), "{status:?}");
}

/// Goal: two files may hold endpoints of one name, and the stream a third. Method: three clusters that share a
/// `service_name`.
#[test]
fn names_are_of_their_file() {
    let mut resources = new(Variant::StateOfTheWorld);
    let named = |name: &str, source: Json| {
        let mut eds = json!({ "eds_config": source });
        eds["service_name"] = "s".into();
        raw(
            ResourceType::Cluster,
            "",
            json!({ "name": name, "type": "EDS", "eds_cluster_config": eds }),
        )
    };
    let by_path = |path: &str| json!({ "path_config_source": { "path": path } });
    let clusters = vec![
        named("a", by_path("/a")),
        named("b", by_path("/b")),
        named("c", json!({ "ads": {} })),
    ];
    resources
        .hear(response(ResourceType::Cluster, "n1", clusters))
        .unwrap();
    for (path, port) in [("/a", 1), ("/b", 2)] {
        let of = of(ResourceType::Endpoint, path);
        resources.receive_file(&of, content(vec![endpoints_at("s", port)]), NOW);
    }
    let asked = said(&mut resources);
    assert!(asked.contains(&"endpoint  =s".to_owned()), "{asked:?}");
    let of_stream = vec![endpoints_at("s", 3)];
    resources
        .hear(response(ResourceType::Endpoint, "n2", of_stream))
        .unwrap();
    for (cluster, port) in [("a", 1), ("b", 2), ("c", 3)] {
        assert_eq!(ports(&mut resources, cluster), Some(vec![port]));
    }
    let names: Vec<String> = resources.status()[1]
        .resources
        .iter()
        .map(|one| one.name.clone())
        .collect();
    assert_eq!(names, ["s", "s in /a", "s in /b"]);
}

/// Goal: what is wrong with a file takes nothing away, and is told with its path. Method: a good file that becomes
/// unreadable, one of another type, and one in which one resource is bad.
#[test]
fn the_last_good_content_stays() {
    let mut resources = Resources::new(Variant::StateOfTheWorld, Arc::default());
    let cds = of(ResourceType::Cluster, "/cds.yaml");
    resources.take_from(cds.clone());
    resources.without_stream();
    let fixed = |name: &str| raw(ResourceType::Cluster, "", json!({ "name": name }));
    resources.receive_file(&cds, content(vec![fixed("a"), fixed("b")]), NOW);
    let error = |resources: &Resources| resources.file_status()[0].error.clone();
    assert_eq!(error(&resources), None);
    resources.receive_file(&cds, Err("cannot be read".into()), NOW);
    assert_eq!(error(&resources).unwrap(), "cannot be read");
    let mut other = content(vec![]).unwrap();
    other.type_url = ResourceType::Listener.url().into();
    resources.receive_file(&cds, Ok(other), NOW);
    assert!(error(&resources).unwrap().starts_with("its type is"));
    assert_eq!(ports(&mut resources, "a"), Some(vec![]));
    let text = RawResource {
        name: "b".into(),
        fault: Some("field x".into()),
        ..RawResource::default()
    };
    resources.receive_file(&cds, content(vec![fixed("c"), text]), NOW);
    assert_eq!(error(&resources).unwrap(), "b: field x");
    assert_eq!(ports(&mut resources, "a"), None, "the file has it no more");
    assert!(ports(&mut resources, "b").is_some(), "refused, not removed");
    assert!(ports(&mut resources, "c").is_some());
    let status = &resources.status()[0];
    assert_eq!(
        (status.responses, status.accepted, status.rejected),
        (2, 3, 1)
    );
    assert_eq!(resources.file_reads(), (4, 3));
    resources.receive_file(&cds, content(vec![fixed("b")]), NOW);
    assert_eq!(error(&resources), None);
}

/// Goal: waiting is bounded: for a name that its file has not, and for what only a stream could bring where there is
/// none. Method: a file without the name; a cluster that asks for `ads`.
#[test]
fn waiting_for_files_is_bounded() {
    let mut resources = Resources::new(Variant::StateOfTheWorld, Arc::default());
    let cds = of(ResourceType::Cluster, "/cds.yaml");
    resources.take_from(cds.clone());
    resources.without_stream();
    let mut by_stream = cluster("b");
    by_stream.name = String::new();
    let both = vec![cluster_of("a", "/eds.yaml"), by_stream];
    resources.receive_file(&cds, content(both), NOW);
    assert_eq!(
        ports(&mut resources, "b"),
        Some(vec![]),
        "nobody brings them"
    );
    let eds = of(ResourceType::Endpoint, "/eds.yaml");
    resources.receive_file(&eds, Err("cannot be read".into()), NOW);
    assert_eq!(resources.deadline(), Some(NOW + MISSING_AFTER));
    resources.elapsed(NOW + MISSING_AFTER);
    assert_eq!(ports(&mut resources, "a"), Some(vec![]));
    let missing = &resources.status()[1].resources[0];
    assert_eq!(
        (missing.name.as_str(), missing.state),
        ("a in /eds.yaml", Some(State::Missing))
    );
    // It comes at last.
    resources.receive_file(&eds, content(vec![endpoints_at("a", 1)]), NOW);
    assert_eq!(ports(&mut resources, "a"), Some(vec![1]));
}

/// Goal: the number of files has a limit, and what lies beyond it is without endpoints. Method: as many files as there
/// may be, and one more.
#[test]
fn files_have_a_limit() {
    let mut resources = new(Variant::StateOfTheWorld);
    let clusters = (0..=FILES_MAX).map(|i| cluster_of(&format!("c{i:04}"), &format!("/{i:04}")));
    resources
        .hear(response(ResourceType::Cluster, "n1", clusters.collect()))
        .unwrap();
    assert_eq!(resources.files().count(), FILES_MAX);
    assert_eq!(resources.files_due().len(), FILES_MAX);
    assert_eq!(
        ports(&mut resources, &format!("c{FILES_MAX:04}")),
        Some(vec![])
    );
    assert_eq!(
        ports(&mut resources, "c0000"),
        None,
        "it waits for its file"
    );
}
