"""Functions and classes: defined, looked up, given other options, and scaled."""

from __future__ import annotations

from grpclib import Status
from modal_proto import api_pb2

from tests.doubles.modal_cloud.cloud import BUSY, PENDING, App, Cloud, Function, id_of, new_id, refuse

COMMON_GPUS = {"T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB", "RTX-PRO-6000"}
GPUS = COMMON_GPUS | {"H100", "H100!", "H200", "B200", "B200+", "B300", "ANY"}
MAX_GPUS = 8
MAX_TIMEOUT_S = 86_400
DATA_FIELDS = {field.name for field in api_pb2.FunctionData.DESCRIPTOR.fields}


class FunctionRpc:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def FunctionPrecreate(self, request: api_pb2.FunctionPrecreateRequest) -> api_pb2.FunctionPrecreateResponse:
        app = self._cloud.app(request.app_id)
        found = self._cloud.functions.get(request.existing_function_id)
        if found is None:
            found = Function(new_id("fu"), app.app_id, request.function_name)
            self._cloud.functions[found.function_id] = found
        early = api_pb2.Function(
            function_name=request.function_name,
            function_type=request.function_type,
            function_schema=request.function_schema,
            supported_input_formats=request.supported_input_formats,
            supported_output_formats=request.supported_output_formats,
        )
        for name, method in request.method_definitions.items():
            early.method_definitions[name].CopyFrom(method)
        return api_pb2.FunctionPrecreateResponse(
            function_id=found.function_id, handle_metadata=metadata_of(found, early)
        )

    async def FunctionCreate(self, request: api_pb2.FunctionCreateRequest) -> api_pb2.FunctionCreateResponse:
        self._cloud.app(request.app_id)
        data = request.function_data if request.HasField("function_data") else data_of(request.function)
        for ranked in data.ranked_functions:
            check(ranked.function)
            self._check_objects(ranked.function)
        definition = api_pb2.Function()
        definition.CopyFrom(data.ranked_functions[0].function)
        found = self._cloud.functions.get(request.existing_function_id)
        if found is None:
            found = Function(new_id("fu"), request.app_id, definition.function_name)
            self._cloud.functions[found.function_id] = found
        found.staged = (definition, data)
        return api_pb2.FunctionCreateResponse(
            function_id=found.function_id,
            function=definition,
            function_data=data,
            handle_metadata=metadata_of(found, definition),
        )

    async def ClassCreate(self, request: api_pb2.ClassCreateRequest) -> api_pb2.ClassCreateResponse:
        class_id = request.existing_class_id or new_id("cs")
        self._cloud.classes[class_id] = self._cloud.app(request.app_id).app_id
        return api_pb2.ClassCreateResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())

    async def FunctionGet(self, request: api_pb2.FunctionGetRequest) -> api_pb2.FunctionGetResponse:
        app = self._app(request.app_name, request.environment_name)
        function_id = app.function_ids.get(request.object_tag) or refuse(
            Status.NOT_FOUND, f"Function '{request.object_tag}' not found in app '{app.name}'."
        )
        found = self._cloud.function(function_id)
        return api_pb2.FunctionGetResponse(
            function_id=function_id, handle_metadata=metadata(found), function=found.data
        )

    async def FunctionGetById(self, request: api_pb2.FunctionGetByIdRequest) -> api_pb2.FunctionGetByIdResponse:
        found = self._cloud.function(request.function_id)
        return api_pb2.FunctionGetByIdResponse(function=found.data, handle_metadata=metadata(found))

    async def ClassGet(self, request: api_pb2.ClassGetRequest) -> api_pb2.ClassGetResponse:
        app = self._app(request.app_name, request.environment_name)
        class_id = app.class_ids.get(request.object_tag) or refuse(
            Status.NOT_FOUND, f"Class '{request.object_tag}' not found in app '{app.name}'."
        )
        return api_pb2.ClassGetResponse(class_id=class_id, handle_metadata=api_pb2.ClassHandleMetadata())

    async def FunctionBindParams(
        self, request: api_pb2.FunctionBindParamsRequest
    ) -> api_pb2.FunctionBindParamsResponse:
        base = self._cloud.function(request.function_id)
        check_options(request.function_options)
        options = request.function_options.SerializeToString(deterministic=True)
        function_id = id_of("fu", b"\0".join([base.function_id.encode(), options, request.serialized_params]))
        found = self._cloud.functions.get(function_id)
        if found is None:
            found = Function(function_id, base.app_id, base.name, base_id=base.function_id)
            found.options.CopyFrom(request.function_options)
            found.params = request.serialized_params
            derive(found, base)
            self._check_objects(found.definition)
            self._cloud.functions[function_id] = found
        handle = metadata(found)
        handle.base_function_id = base.function_id
        return api_pb2.FunctionBindParamsResponse(bound_function_id=function_id, handle_metadata=handle)

    async def FunctionUpdateSchedulingParams(
        self, request: api_pb2.FunctionUpdateSchedulingParamsRequest
    ) -> api_pb2.FunctionUpdateSchedulingParamsResponse:
        found = self._cloud.function(request.function_id)
        found.autoscaler.MergeFrom(request.settings)
        self._cloud.bell.ring()
        return api_pb2.FunctionUpdateSchedulingParamsResponse(current_settings=found.settings)

    async def FunctionGetSchedulingParams(
        self, request: api_pb2.FunctionGetSchedulingParamsRequest
    ) -> api_pb2.FunctionGetSchedulingParamsResponse:
        found = self._cloud.function(request.function_id)
        configuration = api_pb2.AutoscalerConfiguration(
            settings=found.settings,
            static_settings=found.definition.autoscaler_settings,
            override_settings=found.autoscaler,
        )
        return api_pb2.FunctionGetSchedulingParamsResponse(autoscaler_configuration=configuration)

    async def FunctionGetCurrentStats(self, request: api_pb2.FunctionGetCurrentStatsRequest) -> api_pb2.FunctionStats:
        found = self._cloud.function(request.function_id)
        alive = self._cloud.alive(found.function_id)
        inputs = [one for one in self._cloud.inputs.values() if one.function_id == found.function_id]
        return api_pb2.FunctionStats(
            backlog=sum(one.state == PENDING for one in inputs),
            num_total_tasks=len(alive),
            num_running_inputs=sum(container.state == BUSY for container in alive),
            input_headroom=sum(container.state != BUSY for container in alive),
        )

    def _app(self, name: str, environment: str) -> App:
        return self._cloud.deployed(name, environment) or refuse(
            Status.NOT_FOUND, f"App '{name}' not found in environment '{self._cloud.environment(environment)}'."
        )

    def _check_objects(self, definition: api_pb2.Function) -> None:
        for mount in definition.volume_mounts:
            self._cloud.volume(mount.volume_id)
        of_buckets = [mount.credentials_secret_id for mount in definition.cloud_bucket_mounts]
        for secret_id in [*definition.secret_ids, *filter(None, of_buckets)]:
            if secret_id not in self._cloud.secrets:
                refuse(Status.NOT_FOUND, f"Secret '{secret_id}' not found.")


def publish(cloud: Cloud, function: Function) -> None:
    """Make the staged definition the one in force, for its variants too."""
    if function.staged is None:
        return
    definition, data = function.staged
    function.definition, function.data, function.staged = definition, data, None
    function.generation += 1
    function.autoscaler.Clear()
    for variant in cloud.functions.values():
        if variant.base_id == function.function_id:
            derive(variant, function)
            variant.autoscaler.Clear()


def derive(variant: Function, base: Function) -> None:
    """Give a variant its base's definition with its own options."""
    options = variant.options
    definition = api_pb2.Function()
    definition.CopyFrom(base.definition)
    if options.HasField("resources"):
        definition.resources.MergeFrom(options.resources)
    if options.HasField("retry_policy"):
        definition.retry_policy.CopyFrom(options.retry_policy)
    for field in ("timeout_secs", "max_concurrent_inputs", "target_concurrent_inputs"):
        if options.HasField(field):
            setattr(definition, field, getattr(options, field))
    if options.replace_secret_ids:
        del definition.secret_ids[:]
        definition.secret_ids.extend(options.secret_ids)
    if options.replace_volume_mounts:
        del definition.volume_mounts[:]
        definition.volume_mounts.extend(options.volume_mounts)
    if options.replace_cloud_bucket_mounts:
        del definition.cloud_bucket_mounts[:]
        definition.cloud_bucket_mounts.extend(options.cloud_bucket_mounts)
    variant.definition, variant.data = definition, data_of(definition)
    variant.generation = base.generation


def data_of(definition: api_pb2.Function) -> api_pb2.FunctionData:
    """A definition in the form that can hold several GPUs."""
    data = api_pb2.FunctionData()
    for field, value in definition.ListFields():
        if field.name not in DATA_FIELDS:
            continue
        if isinstance(value, (str, bytes, int, float)):
            setattr(data, field.name, value)
        else:
            getattr(data, field.name).MergeFrom(value)
    data.ranked_functions.add().function.CopyFrom(definition)
    return data


def metadata(function: Function) -> api_pb2.FunctionHandleMetadata:
    return metadata_of(function, function.definition)


def metadata_of(function: Function, definition: api_pb2.Function) -> api_pb2.FunctionHandleMetadata:
    """What a client needs to know to call a function, or the methods of a class."""
    found = api_pb2.FunctionHandleMetadata(
        function_name=definition.function_name,
        function_type=definition.function_type,
        definition_id=id_of("de", function.function_id.encode()),
        class_parameter_info=definition.class_parameter_info,
        function_schema=definition.function_schema,
        supported_input_formats=definition.supported_input_formats,
        supported_output_formats=definition.supported_output_formats,
        is_method=definition.is_method,
        app_id=function.app_id,
    )
    for name, method in definition.method_definitions.items():
        found.method_handle_metadata[name].CopyFrom(
            api_pb2.FunctionHandleMetadata(
                function_name=method.function_name,
                function_type=method.function_type,
                use_method_name=name,
                is_method=True,
                function_schema=method.function_schema,
                supported_input_formats=method.supported_input_formats,
                supported_output_formats=method.supported_output_formats,
                app_id=function.app_id,
            )
        )
    return found


def check(definition: api_pb2.Function) -> None:
    """Refuse what Modal's server refuses; the client does not check these."""
    check_gpu(definition.resources.gpu_config)
    check_timeout(definition.timeout_secs)
    for mount in definition.cloud_bucket_mounts:
        if not mount.credentials_secret_id:
            refuse(Status.INVALID_ARGUMENT, f"This double has no public buckets, as '{mount.bucket_name}' would be.")
    if definition.scheduler_placement.nonpreemptible and definition.resources.gpu_config.gpu_type:
        refuse(Status.INVALID_ARGUMENT, "nonpreemptible is not supported for Functions with a GPU.")


def check_options(options: api_pb2.FunctionOptions) -> None:
    check_gpu(options.resources.gpu_config)
    check_timeout(options.timeout_secs)


def check_gpu(gpu: api_pb2.GPUConfig) -> None:
    if gpu.gpu_type and gpu.gpu_type not in GPUS:
        refuse(Status.INVALID_ARGUMENT, f"Unknown GPU type: '{gpu.gpu_type}'")
    if gpu.count > MAX_GPUS:
        refuse(Status.INVALID_ARGUMENT, f"At most {MAX_GPUS} GPUs of type '{gpu.gpu_type}' per container.")


def check_timeout(timeout_s: int) -> None:
    if timeout_s > MAX_TIMEOUT_S:
        refuse(Status.INVALID_ARGUMENT, f"timeout must be at most {MAX_TIMEOUT_S} seconds, not {timeout_s}.")
