# tensorrt-stubs 10.13 is generated. Five of its lines are no Python (a parameter called `in`, one without a default behind others
# with one), and mypy reads nothing of a file it cannot parse; its module-level `bool` shadows the type in every signature.
s/\([(,] *\)in: list\[/\1in_: list[/
s/channel_axis: int) -> IScaleLayer/channel_axis: int = ...) -> IScaleLayer/
/^bool: DataType/d
