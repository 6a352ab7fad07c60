"""A GPU that is not there: tensors on device ``gpu:0`` that are computed on the CPU, for tests on machines without one.

::

    with pretended_device.present() as traffic:
        method.to("gpu")            # every tensor made or moved there is a `PretendedTensor`
    traffic.waits                   # where the host had to wait for the device

Device and host are as strictly apart as on CUDA: an operation that is given tensors of both is refused, random
numbers of the device are not drawn from a generator of the host, and an unfinished copy to the host is not handed out.
Copies between the two are counted, and so are the places where the host waits: blocking copies, numbers that are read
(``.item()``, ``if tensor``, ``.tolist()``), and operations whose result has a shape that only the device knows.

Values are those of the CPU, bit for bit, for whoever computes attention by `torch.nn.attention.SDPBackend.MATH`: the
device has no fused attention. Built on an interface of torch that is experimental; where that is absent, `missing`
says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.testing.pretended_parts import MixedDevices, Module, Traffic, lstm, place

__all__ = ["NAME", "MixedDevices", "PretendedTensor", "Traffic", "missing", "present"]

NAME = "gpu"

_setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)


def missing() -> str | None:
    """Why there is no such device here, or None."""
    if _setup is None or not hasattr(torch._C, "_acc"):
        return f"torch {torch.__version__} cannot pretend a device: a newer one can (2.10 does)"
    other = torch._C._get_privateuse1_backend_name()
    return None if other in ("privateuseone", NAME) else f"the device `{other}` of another package is in its place"


@contextlib.contextmanager
def present() -> Iterator[Traffic]:
    """Device ``gpu`` exists inside the block; what was made there is of no use behind it.

    torch keeps the device's name for the rest of the process. Gradients are computed in the thread that asks for them.

    Yields:
        The traffic, counted as it happens.

    Raises:
        RuntimeError: There is none here (`missing`).
    """
    if (reason := missing()) is not None:
        raise RuntimeError(reason)
    _registered()
    traffic = Traffic()
    with _parameters_stay(), _Mode(traffic), torch.autograd.set_multithreading_enabled(False):
        yield traffic


@contextlib.contextmanager
def _parameters_stay() -> Iterator[None]:
    """A parameter stays the same object when its module is moved, as on a GPU: tied weights stay tied.

    torch can do so by swapping what two objects hold. While a state is loaded it must not: nothing is moved then.
    """
    module: Any = torch.nn.Module
    apply = module._apply

    def swapping(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return apply(self, *args, **kwargs)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)

    module._apply = swapping
    try:
        yield
    finally:
        module._apply = apply


class PretendedTensor(Tensor):
    """A tensor that says it is on the device and holds one of the CPU.

    Attributes:
        held: Its values; memory is shared by views as on a device.
    """

    held: Tensor

    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> PretendedTensor:
        """Claims a tensor of the CPU."""
        made: PretendedTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=torch.device(NAME, 0),
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Whatever reaches it without a mode, e.g. behind `present`, is computed and not counted."""
        return _run(func, args, kwargs or {}, Traffic())

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """As the tensor that it holds."""
        return f"{type(self).__name__}({self.held!r})"

    def __format__(self, how: str) -> str:
        """A number is read for it, as on a GPU."""
        return format(self.item(), how) if self.dim() == 0 else format(repr(self), how)

    def tolist(self) -> Any:
        """Numbers; they are copied to the host."""
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """Refused as on a GPU, or copied to the host by force."""
        if not force:
            raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first")
        return self.detach().cpu().numpy()

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        """As `numpy`."""
        return self.numpy()

    def untyped_storage(self) -> torch.UntypedStorage:
        """The memory, which views share."""
        return self.held.untyped_storage()

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendedTensor:
        """A copy on the device, with its gradient, as of a tensor that has no history."""
        if id(self) not in memo:
            made = PretendedTensor(self.held.detach().clone())
            made.requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                made._is_param = True
            if self.grad is not None:
                made.grad = self.grad.__deepcopy__(memo)
            memo[id(self)] = made
        found: PretendedTensor = memo[id(self)]
        return found

    def __reduce_ex__(self, protocol: Any) -> Any:
        """What `torch.save` and pickle keep; it is loaded back onto the device."""
        return _loaded, (self.held.detach(), self.requires_grad, isinstance(self, torch.nn.Parameter))

    @property
    def data(self) -> Tensor:
        """The values without history."""
        return self.detach()

    @data.setter
    def data(self, other: Tensor) -> None:
        if not isinstance(other, PretendedTensor):
            raise MixedDevices(f"a tensor of the host was made the data of one on the device, at {place()}")
        _become(self, other)


def _loaded(held: Tensor, requires_grad: bool, parameter: bool) -> PretendedTensor:
    made = PretendedTensor(held)
    made.requires_grad_(requires_grad)
    if parameter:
        made._is_param = True
    return made


def _become(tensor: PretendedTensor, other: PretendedTensor) -> None:
    """Shape and values of another one, in place."""
    torch.Tensor.data.__set__(tensor, other)  # type: ignore[attr-defined]
    tensor.held = other.held


class _Mode(TorchDispatchMode):
    """Sees every operation, those that make tensors too."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.traffic = traffic

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as it is, without a wrapper around each operation

    def __enter__(self) -> Any:
        _ACTIVE.append(self.traffic)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        _ACTIVE.pop()
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {}, self.traffic)


_ACTIVE: list[Traffic] = []
_aten = torch.ops.aten

_COPIES = {_aten._to_copy.default, _aten.copy_.default}
_READS = {
    _aten._local_scalar_dense.default: "a number is read",
    _aten.equal.default: "two tensors are compared",
    _aten._linalg_check_errors.default: "a decomposition is checked",
}
_SHAPES = {
    _aten.nonzero.default,
    _aten.masked_select.default,
    _aten._unique2.default,
    _aten.unique_dim.default,
    _aten.unique_consecutive.default,
    _aten.bincount.default,
}
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_SCALARS = {_aten.where.self, _aten.fill.Tensor, _aten.fill_.Tensor}
_SCALARS |= {_aten.masked_fill.Tensor, _aten.masked_fill_.Tensor}


def _run(func: Any, args: Any, kwargs: Any, traffic: Traffic) -> Any:
    """One operation: on the host, on the device, or from one to the other."""
    ours: list[PretendedTensor] = []
    hosts: list[Tensor] = []
    plain = _held(args, ours, hosts)
    named = {name: _held(value, ours, hosts) for name, value in kwargs.items()}
    device = kwargs.get("device")
    if device is not None:
        named["device"] = torch.device("cpu") if _is_ours(device) else device
    if not ours and not _is_ours(device):
        return args[0].clone() if func is _aten._pin_memory.default else func(*args, **kwargs)
    if func in _COPIES:
        return _copied(func, args, kwargs, plain, named, traffic)
    on_device = _is_ours(device) if device is not None else True
    if func is _aten._pin_memory.default:
        raise MixedDevices(f"only memory of the host can be page-locked, at {place()}")
    hosts = hosts if ours else []  # e.g. `zeros_like(host, device=...)` reads nothing
    if hosts and func in _INDEXED:
        hosts = _indices(args, hosts, traffic)
    if hosts and not _allowed(func, args, hosts):
        raise MixedDevices(f"{func} was given tensors of the host and of the device, at {place()}")
    if kwargs.get("generator") is not None:
        raise MixedDevices(f"{func} on the device was given a generator of the host, at {place()}")
    _account(func, args, kwargs, traffic)
    found = func(*plain, **named)
    return _wrapped(found, func, args, kwargs) if on_device else found


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _held(value: Any, ours: list[PretendedTensor], hosts: list[Tensor]) -> Any:
    """A tree with what pretended tensors hold; collects them and those of the host."""
    if isinstance(value, PretendedTensor):
        ours.append(value)
        return value.held
    if isinstance(value, Tensor):
        hosts.append(value)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)([_held(item, ours, hosts) for item in value])
    return value


def _copied(func: Any, args: Any, kwargs: Any, plain: Any, named: Any, traffic: Traffic) -> Any:
    """``.to(...)`` and ``copy_``."""
    if func is _aten.copy_.default:
        into, out_of = (isinstance(one, PretendedTensor) for one in args[:2])
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    else:
        out_of = isinstance(args[0], PretendedTensor)
        into = _is_ours(kwargs["device"]) if kwargs.get("device") is not None else out_of
        waits = not kwargs.get("non_blocking", False)
    if into and not out_of:
        traffic.to_device += 1
        if waits:
            traffic.wait("a blocking copy to the device")
    elif out_of and not into:
        if not waits:
            raise MixedDevices(f"a copy to the host is used before it is finished (non_blocking=True), at {place()}")
        traffic.to_host += 1
        traffic.wait("a copy to the host")
    found = func(*plain, **named)
    if func is _aten.copy_.default:
        return args[0]
    return PretendedTensor(found) if into else found


def _indices(args: Any, hosts: list[Tensor], traffic: Traffic) -> list[Tensor]:
    """A tensor of the device may be indexed from the host, at the price of a copy; returns what else is of the host."""
    if not isinstance(args[0], PretendedTensor):
        return hosts
    indices = {id(index) for index in args[1] if isinstance(index, Tensor) and not isinstance(index, PretendedTensor)}
    for _ in indices:
        traffic.to_device += 1
        traffic.wait("an index of the host")
    return [tensor for tensor in hosts if id(tensor) not in indices]


def _allowed(func: Any, args: Any, hosts: list[Tensor]) -> bool:
    """Whether a GPU takes these tensors of the host: single numbers beside what is computed element by element."""
    if any(tensor.dim() for tensor in hosts):
        return False
    if not (torch.Tag.pointwise in func.tags or func in _SCALARS or func in _INDEXED):
        return False
    return not (func._schema.is_mutable and isinstance(args[0], Tensor) and not isinstance(args[0], PretendedTensor))


def _account(func: Any, args: Any, kwargs: Any, traffic: Traffic) -> None:
    if (what := _READS.get(func)) is not None:
        traffic.to_host += 1
        traffic.wait(what)
    elif func in _SHAPES or (func is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None):
        traffic.to_host += 1
        traffic.wait(f"the shape of {func._schema.name.removeprefix('aten::')} is asked for")
    elif func in _INDEXED and any(isinstance(one, Tensor) and one.dtype in _MASKS for one in args[1]):
        traffic.to_host += 1
        traffic.wait("the shape of what a mask leaves is asked for")


_MASKS = (torch.bool, torch.uint8)


def _wrapped(found: Any, func: Any, args: Any, kwargs: Any) -> Any:
    """The result on the device; an operation in place returns what it changed."""
    if isinstance(found, Tensor):
        changed = kwargs.get("out")
        if changed is None and func._schema.is_mutable and args and isinstance(args[0], PretendedTensor):
            changed = args[0] if found is args[0].held else None
        if changed is None:
            return PretendedTensor(found)
        if torch.Tag.inplace_view in func.tags or changed.shape != found.shape:
            _become(changed, PretendedTensor(found.detach()))
        return changed
    if isinstance(found, (list, tuple)):
        return type(found)(PretendedTensor(one) if isinstance(one, Tensor) else one for one in found)
    return found


def _registered() -> None:
    """Tells torch of the device, once for a process."""
    if torch._C._get_privateuse1_backend_name() == NAME:
        return
    assert _setup is not None  # `missing` was asked
    _setup(NAME, Module())
    # `torch.tensor(..., device=...)` makes a tensor behind the mode's back.
    for name, kernel in _KERNELS.items():
        _LIBRARY.impl(name, kernel, "PrivateUse1")
    _LIBRARY.impl("lstm.input", lstm, "AutogradPrivateUse1")


def _empty(size: Any, **options: Any) -> Tensor:
    return PretendedTensor(torch.empty(size, dtype=options.get("dtype"), device="cpu"))


def _empty_strided(size: Any, stride: Any, **options: Any) -> Tensor:
    return PretendedTensor(torch.empty_strided(size, stride, dtype=options.get("dtype"), device="cpu"))


def _copy_from(source: Tensor, into: Tensor, non_blocking: bool = False) -> Tensor:
    traffic = _ACTIVE[-1] if _ACTIVE else Traffic()
    found: Tensor = _copied(_aten.copy_.default, (into, source, non_blocking), {}, _plain(into, source), {}, traffic)
    return found


def _plain(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(one.held if isinstance(one, PretendedTensor) else one for one in tensors)


_LIBRARY = torch.library.Library("aten", "IMPL")
_KERNELS: Mapping[str, Callable[..., Any]] = {
    "empty.memory_format": _empty,
    "empty_strided": _empty_strided,
    "_copy_from": _copy_from,
}
