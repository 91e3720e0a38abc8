//! EC2, faked.

use std::sync::{Arc, Mutex};

use aws_sdk_ec2::{
    operation::{
        delete_snapshot::{DeleteSnapshotError, DeleteSnapshotOutput},
        describe_fast_snapshot_restores::{DescribeFastSnapshotRestoresError, DescribeFastSnapshotRestoresOutput},
        describe_instances::{DescribeInstancesError, DescribeInstancesOutput},
        describe_launch_template_versions::{
            DescribeLaunchTemplateVersionsError, DescribeLaunchTemplateVersionsOutput,
        },
        describe_launch_templates::{DescribeLaunchTemplatesError, DescribeLaunchTemplatesOutput},
        describe_snapshots::{DescribeSnapshotsError, DescribeSnapshotsOutput},
        disable_fast_snapshot_restores::{DisableFastSnapshotRestoresError, DisableFastSnapshotRestoresOutput},
        terminate_instances::{TerminateInstancesError, TerminateInstancesOutput},
    },
    types::{
        DescribeFastSnapshotRestoreSuccessItem, DisableFastSnapshotRestoreErrorItem,
        DisableFastSnapshotRestoreStateError, DisableFastSnapshotRestoreStateErrorItem,
        DisableFastSnapshotRestoreSuccessItem, Instance, InstanceState, InstanceStateChange, InstanceStateName,
        LaunchTemplate, LaunchTemplateBlockDeviceMapping, LaunchTemplateEbsBlockDevice, LaunchTemplateVersion,
        Reservation, ResponseLaunchTemplateData,
    },
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};

use super::services::{OURS, Services, carry, fault, page, tagged, words};

pub fn ec2(state: &Arc<Mutex<Services>>) -> aws_sdk_ec2::Client {
    let shared = Arc::clone(state);
    let instances = mock!(aws_sdk_ec2::Client::describe_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeInstances", "") {
            return fault!(aws_sdk_ec2, DescribeInstancesError, code);
        }
        let filters = words(input.filters());
        assert_eq!(filters[..2], OURS);
        assert_eq!(
            filters[filters.len() - 1],
            "instance-state-name=pending,running,stopping,stopped"
        );
        let half = state.half;
        let rows = state.instances.iter().filter(|(_, tags)| carry(tags, &filters));
        let (rows, token) = page(rows, input.next_token());
        let rows = rows.into_iter().map(|(id, tags)| {
            let instance = Instance::builder()
                .instance_id(id)
                .set_tags((half != Some("tags")).then(|| tagged(tags)));
            Reservation::builder().instances(instance.build()).build()
        });
        let rows = (half != Some("DescribeInstances")).then(|| rows.collect());
        let output = DescribeInstancesOutput::builder().set_reservations(rows);
        MockResponse::Output(output.set_next_token(token).build())
    });
    let shared = Arc::clone(state);
    let terminate = mock!(aws_sdk_ec2::Client::terminate_instances).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = &input.instance_ids()[0];
        if let Some(code) = state.call("TerminateInstances", id) {
            return fault!(aws_sdk_ec2, TerminateInstancesError, code);
        }
        if state.half == Some("TerminateInstances") {
            return MockResponse::Output(TerminateInstancesOutput::builder().build());
        }
        state.instances.remove(id).unwrap();
        let now = InstanceState::builder().name(InstanceStateName::ShuttingDown);
        let change = InstanceStateChange::builder()
            .instance_id(id)
            .current_state(now.build());
        let output = TerminateInstancesOutput::builder().terminating_instances(change.build());
        MockResponse::Output(output.build())
    });
    let shared = Arc::clone(state);
    let snapshots = mock!(aws_sdk_ec2::Client::describe_snapshots).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeSnapshots", "") {
            return fault!(aws_sdk_ec2, DescribeSnapshotsError, code);
        }
        let filters = words(input.filters());
        assert_eq!(filters[..2], OURS);
        assert_eq!(input.owner_ids(), ["self"]);
        let half = state.half;
        let rows = state.snapshots.iter().filter(|(_, tags)| carry(tags, &filters));
        let (rows, token) = page(rows, input.next_token());
        let rows = rows.into_iter().map(|(id, tags)| {
            let snapshot = aws_sdk_ec2::types::Snapshot::builder().snapshot_id(id);
            snapshot.set_tags((half != Some("tags")).then(|| tagged(tags))).build()
        });
        let rows = (half != Some("DescribeSnapshots")).then(|| rows.collect());
        let output = DescribeSnapshotsOutput::builder().set_snapshots(rows);
        MockResponse::Output(output.set_next_token(token).build())
    });
    let shared = Arc::clone(state);
    let delete = mock!(aws_sdk_ec2::Client::delete_snapshot).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = input.snapshot_id().unwrap();
        if let Some(code) = state.call("DeleteSnapshot", id) {
            return fault!(aws_sdk_ec2, DeleteSnapshotError, code);
        }
        state.snapshots.remove(id).unwrap();
        MockResponse::Output(DeleteSnapshotOutput::builder().build())
    });
    let restores = fast_restores(state);
    let disable = disable_fast_restores(state);
    let templates = templates(state);
    let versions = versions(state);
    mock_client!(
        aws_sdk_ec2,
        RuleMode::MatchAny,
        [
            &instances, &terminate, &snapshots, &delete, &restores, &disable, &templates, &versions
        ],
        |config| { config.retry_config(aws_sdk_ec2::config::retry::RetryConfig::disabled()) }
    )
}

pub fn fast_restores(state: &Arc<Mutex<Services>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::describe_fast_snapshot_restores).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeFastSnapshotRestores", "") {
            return fault!(aws_sdk_ec2, DescribeFastSnapshotRestoresError, code);
        }
        assert_eq!(words(input.filters())[1], "state=enabling,optimizing,enabled");
        let ids = input.filters()[0].values();
        let rows = state.restores.iter().filter(|(id, _)| ids.contains(id));
        let rows = rows.flat_map(|(id, zones)| zones.iter().map(move |zone| (id, zone)));
        let (rows, token) = page(rows, input.next_token());
        let rows = rows.into_iter().map(|(id, zone)| {
            let row = DescribeFastSnapshotRestoreSuccessItem::builder().snapshot_id(id);
            row.availability_zone(zone).build()
        });
        let output = DescribeFastSnapshotRestoresOutput::builder();
        let rows = (state.half != Some("DescribeFastSnapshotRestores")).then(|| rows.collect());
        let output = output.set_fast_snapshot_restores(rows);
        MockResponse::Output(output.set_next_token(token).build())
    })
}

pub fn disable_fast_restores(state: &Arc<Mutex<Services>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::disable_fast_snapshot_restores).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = &input.source_snapshot_ids()[0];
        if let Some(code) = state.call("DisableFastSnapshotRestores", id) {
            return fault!(aws_sdk_ec2, DisableFastSnapshotRestoresError, code);
        }
        let mut output = DisableFastSnapshotRestoresOutput::builder();
        if state.half == Some("DisableFastSnapshotRestores") {
            return MockResponse::Output(output.build());
        }
        if state.refuses_zones {
            let why = DisableFastSnapshotRestoreStateError::builder()
                .code("c")
                .message("not now");
            let zone =
                DisableFastSnapshotRestoreStateErrorItem::builder().availability_zone(&input.availability_zones()[0]);
            let refused = DisableFastSnapshotRestoreErrorItem::builder().snapshot_id(id);
            output = output.unsuccessful(
                refused
                    .fast_snapshot_restore_state_errors(zone.error(why.build()).build())
                    .build(),
            );
        } else {
            state.restores.remove(id).unwrap();
            state.disabled.insert(id.clone(), input.availability_zones().to_vec());
            for zone in input.availability_zones() {
                let row = DisableFastSnapshotRestoreSuccessItem::builder().availability_zone(zone);
                output = output.successful(row.build());
            }
        }
        MockResponse::Output(output.build())
    })
}

pub fn templates(state: &Arc<Mutex<Services>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::describe_launch_templates).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        if let Some(code) = state.call("DescribeLaunchTemplates", "") {
            return fault!(aws_sdk_ec2, DescribeLaunchTemplatesError, code);
        }
        let (rows, token) = page(state.templates.keys(), input.next_token());
        let rows = rows
            .into_iter()
            .map(|id| LaunchTemplate::builder().launch_template_id(id).build());
        let rows = (state.half != Some("DescribeLaunchTemplates")).then(|| rows.collect());
        let output = DescribeLaunchTemplatesOutput::builder().set_launch_templates(rows);
        MockResponse::Output(output.set_next_token(token).build())
    })
}

pub fn versions(state: &Arc<Mutex<Services>>) -> aws_smithy_mocks::Rule {
    let shared = Arc::clone(state);
    mock!(aws_sdk_ec2::Client::describe_launch_template_versions).then_compute_response(move |input| {
        let mut state = shared.lock().unwrap();
        let id = input.launch_template_id().unwrap();
        if let Some(code) = state.call("DescribeLaunchTemplateVersions", id) {
            return fault!(aws_sdk_ec2, DescribeLaunchTemplateVersionsError, code);
        }
        assert!(input.versions().is_empty());
        if state.half == Some("DescribeLaunchTemplateVersions") {
            return MockResponse::Output(DescribeLaunchTemplateVersionsOutput::builder().build());
        }
        let (rows, token) = page(state.templates[id].iter().zip(1..), input.next_token());
        let rows = rows.into_iter().map(|(snapshots, number)| {
            let devices = snapshots.iter().map(|snapshot| {
                let disk = LaunchTemplateEbsBlockDevice::builder().snapshot_id(snapshot).build();
                LaunchTemplateBlockDeviceMapping::builder().ebs(disk).build()
            });
            let data = ResponseLaunchTemplateData::builder().set_block_device_mappings(Some(devices.collect()));
            LaunchTemplateVersion::builder()
                .launch_template_name("nodes")
                .version_number(number)
                .launch_template_data(data.build())
                .build()
        });
        let output = DescribeLaunchTemplateVersionsOutput::builder();
        let output = output.set_launch_template_versions(Some(rows.collect()));
        MockResponse::Output(output.set_next_token(token).build())
    })
}
