//! Our structs and fields beside NVIDIA's, for the test and the example that compare their layouts.

/// Calls the macro `$then` with the table.
macro_rules! with_structs {
    ($then:ident) => {
        $then! {
            PciInfo = nvmlPciInfo_t {
                bus_id_legacy = busIdLegacy, domain = domain, bus = bus, device = device, pci_device_id = pciDeviceId,
                pci_subsystem_id = pciSubSystemId, bus_id = busId
            }
            Utilization = nvmlUtilization_t { gpu = gpu, memory = memory }
            Memory = nvmlMemory_t { total = total, free = free, used = used }
            MemoryV2 = nvmlMemory_v2_t { version = version, total = total, reserved = reserved, free = free, used = used }
            Bar1Memory = nvmlBAR1Memory_t { total = bar1Total, free = bar1Free, used = bar1Used }
            TemperatureV1 = nvmlTemperature_v1_t { version = version, sensor = sensorType, temperature = temperature }
            MarginTemperatureV1 = nvmlMarginTemperature_v1_t { version = version, margin = marginTemperature }
            RowRemapperHistogram = nvmlRowRemapperHistogramValues_t {
                max = max, high = high, partial = partial, low = low, none = none
            }
            ViolationTime = nvmlViolationTime_t { reference_ns = referenceTime, violation_ns = violationTime }
            DeviceAttributes = nvmlDeviceAttributes_t {
                multiprocessors = multiprocessorCount, copy_engines = sharedCopyEngineCount,
                decoders = sharedDecoderCount, encoders = sharedEncoderCount, jpeg_engines = sharedJpegCount,
                ofa_engines = sharedOfaCount, gpu_slices = gpuInstanceSliceCount,
                compute_slices = computeInstanceSliceCount, memory_mib = memorySizeMB
            }
            FabricInfo = nvmlGpuFabricInfo_t {
                cluster_uuid = clusterUuid, status = status, clique_id = cliqueId, state = state
            }
            FabricInfoV2 = nvmlGpuFabricInfo_v2_t {
                version = version, cluster_uuid = clusterUuid, status = status, clique_id = cliqueId, state = state,
                health_mask = healthMask
            }
            FabricInfoV3 = nvmlGpuFabricInfo_v3_t {
                version = version, cluster_uuid = clusterUuid, status = status, clique_id = cliqueId, state = state,
                health_mask = healthMask, health_summary = healthSummary
            }
            PlatformInfoV1 = nvmlPlatformInfo_v1_t {
                version = version, ib_guid = ibGuid, rack_guid = rackGuid, chassis_slot = chassisPhysicalSlotNumber,
                compute_slot = computeSlotIndex, node = nodeIndex, peer_type = peerType, module = moduleId
            }
            PlatformInfoV2 = nvmlPlatformInfo_v2_t {
                version = version, ib_guid = ibGuid, chassis_serial = chassisSerialNumber, slot = slotNumber,
                tray = trayIndex, host = hostId, peer_type = peerType, module = moduleId
            }
            ProcessInfo = nvmlProcessInfo_t {
                pid = pid, used_memory = usedGpuMemory, gpu_instance = gpuInstanceId, compute_instance = computeInstanceId
            }
            ProcessInfoV1 = nvmlProcessInfo_v1_t { pid = pid, used_memory = usedGpuMemory }
            ProcessUtilization = nvmlProcessUtilizationSample_t {
                pid = pid, timestamp_us = timeStamp, sm = smUtil, memory = memUtil, encoder = encUtil, decoder = decUtil
            }
            EventData = nvmlEventData_t {
                device = device, event_type = eventType, event_data = eventData, gpu_instance = gpuInstanceId,
                compute_instance = computeInstanceId
            }
            Sample = nvmlSample_t { timestamp_us = timeStamp, value = sampleValue }
            Value = nvmlValue_t { double = dVal, signed_int = siVal, unsigned_int = uiVal, unsigned_long_long = ullVal }
            FieldValue = nvmlFieldValue_t {
                field = fieldId, scope = scopeId, timestamp_us = timestamp, latency_us = latencyUsec,
                value_type = valueType, code = nvmlReturn, value = value
            }
            GpmSupport = nvmlGpmSupport_t { version = version, supported = isSupportedDevice }
            GpmMetric = nvmlGpmMetric_t { metric = metricId, code = nvmlReturn, value = value, short_name = metricInfo }
        }
    };
}
pub(crate) use with_structs;
