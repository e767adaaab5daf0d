// Task<T>: a lazy, single-owner coroutine that runs on one lane. It starts when awaited (or
// start()ed), inherits its awaiter's TaskContext, and its frame comes from a recycling allocator.
// Destroying a suspended Task destroys its frame; awaitables unlink themselves in destructors.
// An exception that leaves the body is rethrown at the await; rooms turn it into a Failure.
//
// GCC 12: name arguments before awaiting (see docs/HACKING.md). No symmetric transfer is used:
// tasks resume each other inline, and past a bound of nesting through a turn of the lane, so
// neither long chains nor deep recursion grow the stack.
#pragma once
#include <coroutine>
#include <cstddef>
#include <exception>
#include <optional>
#include <utility>

#include "sluice/base/cancel.hpp"

namespace sluice {

/// Thread-local free lists of coroutine frames, by size class. Blocks may be freed on another
/// thread than they came from.
void* allocate_frame(std::size_t size);
void free_frame(void* frame, std::size_t size) noexcept;

template <class T>
class Task;

namespace detail {

// How many tasks may resume each other inside one another; a level costs up to half a kilobyte
// of stack (1 kB under sanitizers).
inline constexpr unsigned kInlineDepthMax = 256;
inline constinit thread_local unsigned inline_depth = 0;

struct Hop;

struct PromiseBase {
  TaskContext* context = nullptr;
  std::coroutine_handle<> awaiting;
  void (*on_done)(void*) noexcept = nullptr;  // instead of `awaiting`, for start()
  void* on_done_owner = nullptr;
  bool starting = false;  // the awaiter is still inside await_suspend
  bool done = false;
  Hop* hop = nullptr;  // queued on the lane to resume this task, or its awaiter when done
  std::exception_ptr exception;

  PromiseBase() = default;
  PromiseBase(const PromiseBase&) = delete;
  PromiseBase& operator=(const PromiseBase&) = delete;
  ~PromiseBase() {
    if (hop != nullptr) forget_hop();
  }
  /// Resumes `target` from a turn of the lane, unless this promise is destroyed first.
  void resume_later(std::coroutine_handle<> target);
  void forget_hop() noexcept;
  bool must_hop() const noexcept {
    return inline_depth >= kInlineDepthMax && context != nullptr && context->lane != nullptr;
  }

  static void* operator new(std::size_t size) { return allocate_frame(size); }
  static void operator delete(void* frame, std::size_t size) noexcept { free_frame(frame, size); }

  std::suspend_always initial_suspend() noexcept { return {}; }
  struct Final {
    bool await_ready() noexcept { return false; }
    template <class P>
    void await_suspend(std::coroutine_handle<P> self) noexcept {
      PromiseBase& promise = self.promise();
      promise.done = true;
      if (promise.starting) return;  // the awaiter continues by itself
      if (promise.on_done != nullptr) return promise.on_done(promise.on_done_owner);
      if (!promise.awaiting) return;
      if (promise.must_hop()) return promise.resume_later(promise.awaiting);
      ++inline_depth;
      promise.awaiting.resume();
      --inline_depth;
    }
    void await_resume() noexcept {}
  };
  Final final_suspend() noexcept { return {}; }
  void unhandled_exception() noexcept { exception = std::current_exception(); }
};

template <class T>
struct Promise : PromiseBase {
  std::optional<T> value;
  Task<T> get_return_object() noexcept;
  template <class U>
  void return_value(U&& v) {
    value.emplace(std::forward<U>(v));
  }
  T take() {
    if (exception) std::rethrow_exception(exception);
    return std::move(*value);
  }
};

template <>
struct Promise<void> : PromiseBase {
  Task<void> get_return_object() noexcept;
  void return_void() noexcept {}
  void take() {
    if (exception) std::rethrow_exception(exception);
  }
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  using Handle = std::coroutine_handle<promise_type>;

  Task() noexcept = default;
  explicit Task(Handle handle) noexcept : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, {});
    }
    return *this;
  }
  ~Task() { reset(); }

  explicit operator bool() const noexcept { return static_cast<bool>(handle_); }
  bool done() const noexcept { return handle_ && handle_.promise().done; }
  void reset() noexcept {
    if (handle_) std::exchange(handle_, {}).destroy();
  }

  /// Starts it as a root. True: it finished already, `on_done` will not be called. False: on_done
  /// is called later, on the lane; it may destroy the Task. `context` must outlive the Task.
  bool start(TaskContext& context, void (*on_done)(void* owner) noexcept, void* owner) {
    auto& promise = handle_.promise();
    promise.context = &context;
    promise.on_done = on_done;
    promise.on_done_owner = owner;
    promise.starting = true;
    handle_.resume();
    if (promise.done) return true;
    promise.starting = false;
    return false;
  }
  /// The value of a finished Task; rethrows what it threw. Once.
  T take() { return handle_.promise().take(); }

  struct Awaiter {
    Handle child;
    bool await_ready() const noexcept { return false; }
    template <class P>
    bool await_suspend(std::coroutine_handle<P> parent) {
      auto& promise = child.promise();
      promise.context = parent.promise().context;
      promise.awaiting = parent;
      if (promise.must_hop()) {
        promise.resume_later(child);
        return true;
      }
      promise.starting = true;
      ++detail::inline_depth;
      child.resume();
      --detail::inline_depth;
      if (promise.done) return false;  // finished without suspending: go straight on
      promise.starting = false;
      return true;
    }
    T await_resume() { return child.promise().take(); }
  };
  Awaiter operator co_await() const& noexcept { return {handle_}; }
  Awaiter operator co_await() && noexcept { return {handle_}; }

 private:
  Handle handle_;
};

namespace detail {
template <class T>
Task<T> Promise<T>::get_return_object() noexcept {
  return Task<T>(std::coroutine_handle<Promise<T>>::from_promise(*this));
}
inline Task<void> Promise<void>::get_return_object() noexcept {
  return Task<void>(std::coroutine_handle<Promise<void>>::from_promise(*this));
}
}  // namespace detail

/// `TaskContext& context = co_await current_context();`
struct CurrentContext {
  TaskContext* context = nullptr;
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) noexcept {
    context = self.promise().context;
    return false;
  }
  TaskContext& await_resume() const noexcept { return *context; }
};
inline CurrentContext current_context() noexcept { return {}; }

/// Base of awaitables that are completed from the lane and give up when the scope is cancelled.
/// A derived class calls `suspend(handle)` in await_suspend, and `finish()` when its result is
/// there; if the scope is cancelled first, `cancel_kind()` says why and `on_cancel()` ran.
class Suspension {
 public:
  Suspension() = default;
  virtual ~Suspension() = default;
  Suspension(const Suspension&) = delete;
  Suspension& operator=(const Suspension&) = delete;

 protected:
  template <class P>
  bool suspend(std::coroutine_handle<P> self) noexcept {
    context_ = self.promise().context;
    handle_ = self;
    if (context_->scope != nullptr) {
      if (context_->scope->cancelled()) {
        cancel_kind_ = context_->scope->reason();
        return false;
      }
      listener_.link(*context_->scope, &Suspension::cancelled_thunk, this);
    }
    return true;
  }
  /// Resumes the waiter; call once, last: `this` may be gone afterwards.
  void finish() noexcept {
    listener_.unlink();
    std::exchange(handle_, {}).resume();
  }
  bool waiting() const noexcept { return static_cast<bool>(handle_); }
  TaskContext& context() const noexcept { return *context_; }
  /// none unless cancelled while waiting.
  FailureKind cancel_kind() const noexcept { return cancel_kind_; }
  /// Undo the registration; the waiter is resumed right after.
  virtual void on_cancel() noexcept = 0;

 private:
  static void cancelled_thunk(void* owner) noexcept {
    auto* self = static_cast<Suspension*>(owner);
    self->cancel_kind_ = self->context_->scope->reason();
    self->on_cancel();
    std::exchange(self->handle_, {}).resume();
  }
  TaskContext* context_ = nullptr;
  std::coroutine_handle<> handle_;
  CancelListener listener_;
  FailureKind cancel_kind_ = FailureKind::none;
};

/// `FailureKind k = co_await sleep_for(d)`: none after the time, else why it was cut short.
class Sleep final : public Suspension {
 public:
  explicit Sleep(Duration duration) noexcept : duration_(duration) {}
  ~Sleep() override = default;
  bool await_ready() const noexcept { return false; }
  template <class P>
  bool await_suspend(std::coroutine_handle<P> self) noexcept {
    if (!suspend(self)) return false;
    Lane& lane = *context().lane;
    const Instant now = lane.clock().now();
    const Instant at = duration_ < kNever - now ? now + duration_ : kNever;
    timer_.arm(lane, at, &Sleep::fired, this);
    return true;
  }
  FailureKind await_resume() const noexcept { return cancel_kind(); }

 private:
  static void fired(void* owner) noexcept { static_cast<Sleep*>(owner)->finish(); }
  void on_cancel() noexcept override { timer_.cancel(); }
  Duration duration_;
  Timer timer_;
};
inline Sleep sleep_for(Duration duration) noexcept { return Sleep(duration); }

}  // namespace sluice
