module sn17/tools/pause

go 1.25.0
