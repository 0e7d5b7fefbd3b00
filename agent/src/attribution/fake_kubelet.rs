//! A kubelet for tests: a real gRPC server on a real unix socket.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use tokio::{net::UnixListener, sync::watch, task::JoinHandle};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::podresources::v1::{
    CdiDevice, ClaimResource, ContainerDevices, ContainerResources, DynamicResource, ListPodResourcesRequest,
    ListPodResourcesResponse, PodResources,
    pod_resources_lister_server::{PodResourcesLister, PodResourcesListerServer},
};

/// What the kubelet answers.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// These pods.
    Pods(Vec<PodResources>),
    /// An error.
    Error(Status),
    /// Nothing, ever.
    Silence,
}

/// A kubelet that listens until it is dropped.
#[derive(Debug)]
pub(super) struct FakeKubelet {
    answer: watch::Sender<Answer>,
    server: JoinHandle<()>,
    socket: PathBuf,
}

#[derive(Debug)]
struct Lister(Mutex<watch::Receiver<Answer>>);

#[tonic::async_trait]
impl PodResourcesLister for Lister {
    async fn list(
        &self,
        _: Request<ListPodResourcesRequest>,
    ) -> Result<Response<ListPodResourcesResponse>, Status> {
        let answer = self.0.lock().unwrap().borrow().clone();
        match answer {
            Answer::Pods(pod_resources) => Ok(Response::new(ListPodResourcesResponse { pod_resources })),
            Answer::Error(status) => Err(status),
            Answer::Silence => std::future::pending().await,
        }
    }
}

impl FakeKubelet {
    pub(super) fn start(socket: &Path, answer: Answer) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let (answer, seen) = watch::channel(answer);
        let service = PodResourcesListerServer::new(Lister(Mutex::new(seen)));
        let server =
            Server::builder().add_service(service).serve_with_incoming(UnixListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self { answer, server, socket: socket.to_owned() }
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }
}

impl Drop for FakeKubelet {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// A pod with one container `main`.
pub(super) fn pod(namespace: &str, name: &str, container: ContainerResources) -> PodResources {
    PodResources {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        containers: vec![ContainerResources { name: "main".to_owned(), ..container }],
    }
}

/// A container with devices of a plugin.
pub(super) fn devices(resource: &str, ids: &[&str]) -> ContainerResources {
    let device = ContainerDevices {
        resource_name: resource.to_owned(),
        device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    };
    ContainerResources { devices: vec![device], ..ContainerResources::default() }
}

/// A container with a claim for one device.
pub(super) fn claim(driver: &str, device: &str, cdi: &str) -> ContainerResources {
    let resource = ClaimResource {
        cdi_devices: vec![CdiDevice { name: cdi.to_owned() }],
        driver_name: driver.to_owned(),
        pool_name: "node-7".to_owned(),
        device_name: device.to_owned(),
    };
    let claim = DynamicResource {
        claim_name: "one-gpu".to_owned(),
        claim_namespace: "ml".to_owned(),
        claim_resources: vec![resource],
    };
    ContainerResources { dynamic_resources: vec![claim], ..ContainerResources::default() }
}
