# Completion of `python -m harness` in bash: its options and their values, and the commands beside it.
# It is a list of names, so that a key press waits for nothing; print it anew when methods or packages have changed.

_harness_commands='@COMMANDS@'
_harness_options='@OPTIONS@'

_harness() {
    local typed=${COMP_LINE:0:$COMP_POINT} word names=$_harness_options begun= drop= line
    local -a given
    read -ra given <<< "$typed"
    word=${typed##*[[:space:]]}
    [ -n "$word" ] || given+=('')
    COMPREPLY=()
    [ "${given[1]}" = -m ] || return
    if [ ${#given[@]} -eq 3 ]; then
        names=$_harness_commands
    elif [ "${given[2]}" != harness ] && [ "${given[2]}" != harness.study ]; then
        return
    elif [[ $word == *=* ]]; then
        # Of a list its last value; all of the list is given back, but for what readline takes for a word before it.
        begun=${word%"${word##*[=,]}"}
        [[ $COMP_WORDBREAKS != *=* ]] || drop=${word%%=*}=
    fi
    while read -r line; do
        if [ -n "$begun" ]; then
            [[ $line == "${word%%=*}="?* ]] || continue
            line=$begun${line#*=}
        elif [[ $line == *=?* ]]; then
            continue
        fi
        [[ $line != "$word"* ]] || COMPREPLY+=("${line#"$drop"}")
    done <<< "$names"
}

complete -o default -o nospace -F _harness @PYTHONS@
